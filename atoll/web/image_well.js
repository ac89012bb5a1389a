// The start picture: dropped, pasted or chosen; on it a mask can be painted.
// A mask is a list of operations (strokes, invert, clear) drawn anew when one is undone, so that it is small enough to
// lie in the tab's own storage and survives a reload. White in the exported PNG means "change this".
const MASK_STORE = "atoll-mask";
const PAINT = [255, 90, 60];

export default {
  template: `
    <div :class="['well', {'well--over': over, 'well--large': large}]" @keydown.esc="large = false">
      <div v-if="over" class="well__veil" aria-hidden="true"><b>{{ texts.start_drop }}</b></div>
      <label v-if="!source" class="well__drop">
        <input type="file" class="unseen" :accept="accept" :aria-label="texts.start_choose" @change="choose" />
        <span class="icon" aria-hidden="true">add_photo_alternate</span>
        <span><b>{{ busy ? texts.start_loading : texts.start_title }}</b><small>{{ texts.start_hint }}</small></span>
      </label>
      <template v-else>
        <div class="well__stage">
          <div class="well__frame" :class="{'well__frame--paint': painting}" :style="{'--ratio': ratio}">
            <img ref="image" :key="source + mask_source" :src="source" :alt="texts.start_alt" draggable="false" @load="fit" @error="broken" />
            <canvas ref="canvas" :aria-label="texts.mask" role="img"
              @pointerdown="begin" @pointermove="move" @pointerup="end" @pointercancel="end"
              @pointerleave="cursor = null" @contextmenu.prevent></canvas>
            <i v-if="painting && cursor" class="well__cursor" :style="cursor" aria-hidden="true"></i>
          </div>
        </div>
        <div class="well__bar" role="toolbar" :aria-label="texts.start_tools">
          <button type="button" class="tool" :class="{'tool--on': painting}" :aria-pressed="painting" @click="painting = !painting">
            <span class="icon" aria-hidden="true">brush</span>{{ texts.mask_paint }}
          </button>
          <span class="well__spacer"></span>
          <button type="button" class="tool tool--icon" :title="large ? texts.start_smaller : texts.start_larger" :aria-label="large ? texts.start_smaller : texts.start_larger" @click="large = !large">
            <span class="icon" aria-hidden="true">{{ large ? "close_fullscreen" : "open_in_full" }}</span>
          </button>
          <label class="tool tool--icon" :title="texts.start_replace">
            <input type="file" class="unseen" :accept="accept" :aria-label="texts.start_replace" @change="choose" />
            <span class="icon" aria-hidden="true">swap_horiz</span>
          </label>
          <button type="button" class="tool tool--icon" :title="texts.start_remove" :aria-label="texts.start_remove" @click="remove">
            <span class="icon" aria-hidden="true">close</span>
          </button>
        </div>
        <div v-if="painting" class="well__bar well__bar--paint" role="toolbar" :aria-label="texts.mask">
          <div class="segment" role="group">
            <button type="button" :class="{on: !erasing}" :aria-pressed="!erasing" @click="erasing = false">{{ texts.mask_brush }}</button>
            <button type="button" :class="{on: erasing}" :aria-pressed="erasing" @click="erasing = true">{{ texts.mask_erase }}</button>
          </div>
          <label class="well__size"><span>{{ texts.mask_size }}</span>
            <input type="range" min="1" max="40" step="1" v-model.number="brush" :aria-valuetext="brush + ' %'" /></label>
          <span class="well__spacer"></span>
          <button type="button" class="tool tool--icon" :disabled="!operations.length" :title="texts.mask_undo" :aria-label="texts.mask_undo" @click="undo">
            <span class="icon" aria-hidden="true">undo</span></button>
          <button type="button" class="tool tool--icon" :title="texts.mask_invert" :aria-label="texts.mask_invert" @click="add({kind: 'invert'})">
            <span class="icon" aria-hidden="true">invert_colors</span></button>
          <button type="button" class="tool tool--icon" :disabled="!present" :title="texts.mask_clear" :aria-label="texts.mask_clear" @click="add({kind: 'clear'})">
            <span class="icon" aria-hidden="true">layers_clear</span></button>
        </div>
        <p v-if="painting && !present" class="well__hint">{{ texts.mask_hint }}</p>
      </template>
    </div>
  `,
  props: { source: String, name: String, mask_source: String, upload_url: String },
  emits: ["picture", "removed", "mask", "fault"],
  data() {
    return {
      texts: studio.texts, accept: "image/png,image/jpeg,image/webp",
      over: false, large: false, painting: false, erasing: false, busy: false, brush: 12, // per cent of the longer side
      operations: [], stroke: null, cursor: null, present: false, ratio: 1,
    };
  },
  mounted() {
    // The whole page takes pictures, so that nobody has to aim.
    this.listeners = {
      dragover: (event) => {
        if (!this.carriesPicture(event.dataTransfer)) return;
        event.preventDefault();
        this.over = true;
      },
      dragleave: (event) => { if (!event.relatedTarget) this.over = false; },
      drop: (event) => {
        if (!this.carriesPicture(event.dataTransfer)) return;
        event.preventDefault();
        this.over = false;
        const file = [...event.dataTransfer.files][0];
        const address = event.dataTransfer.getData("text/uri-list").split("\n")[0];
        if (file) this.upload(file);
        else if (address) this.take(address);
      },
      paste: (event) => {
        const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
        if (!file) return;
        event.preventDefault();
        this.upload(file);
      },
    };
    for (const [kind, listener] of Object.entries(this.listeners)) window.addEventListener(kind, listener);
  },
  unmounted() {
    for (const [kind, listener] of Object.entries(this.listeners)) window.removeEventListener(kind, listener);
  },
  watch: {
    source(now) {
      if (!now) Object.assign(this, { operations: [], present: false, painting: false, large: false });
    },
  },
  methods: {
    carriesPicture(transfer) {
      return [...transfer.types].includes("Files") || [...transfer.types].includes("text/uri-list");
    },
    choose(event) {
      const file = event.target.files[0];
      event.target.value = "";
      if (file) this.upload(file);
    },
    // A picture of this server, as one dragged from the gallery.
    async take(address) {
      const url = new URL(address, location.href);
      if (url.origin !== location.origin) return this.$emit("fault", { message: this.texts.start_elsewhere });
      const answer = await fetch(url.pathname.replace(/\/thumbnail$/, "/file"));
      if (!answer.ok) return this.$emit("fault", { message: this.texts.start_unreadable });
      const blob = await answer.blob();
      return this.upload(new File([blob], "start.png", { type: blob.type }));
    },
    async upload(file) {
      this.busy = true;
      try {
        const { width, height } = await createImageBitmap(file).catch(() => { throw new Error(this.texts.start_unreadable); });
        const { name } = await this.send(file);
        this.operations = [];
        this.keep();
        this.painting = false;
        this.$emit("picture", { name, width, height });
      } catch (error) {
        this.$emit("fault", { message: error.message });
      } finally {
        this.busy = false;
      }
    },
    async send(file) {
      const form = new FormData();
      form.append("file", file, file.name || "picture.png");
      const answer = await fetch(this.upload_url, { method: "POST", body: form });
      const body = await answer.json().catch(() => ({}));
      if (!answer.ok) throw new Error(body.error?.message || this.texts.start_unreadable);
      return body;
    },
    broken() { this.$emit("fault", { message: this.texts.start_unreadable }); this.remove(); },
    remove() {
      this.operations = [];
      this.keep();
      this.$emit("removed");
    },

    // --- the mask ---
    async fit() {
      const { image, canvas } = this.$refs;
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      this.ratio = image.naturalWidth / image.naturalHeight;
      const kept = JSON.parse(sessionStorage.getItem(MASK_STORE) || "null");
      if (this.mask_source) this.operations = [{ kind: "picture", address: this.mask_source }];
      else this.operations = kept?.name === this.name ? kept.operations : [];
      if (this.operations[0]?.kind === "picture") await this.load(this.operations[0].address);
      if (this.operations.length) this.painting = true;
      this.keep();
      this.redraw();
    },
    // A mask that an earlier job used: its white becomes paint.
    async load(address) {
      const picture = Object.assign(new Image(), { src: address });
      await picture.decode().catch(() => this.$emit("fault", { message: this.texts.start_unreadable }));
      const { width, height } = this.$refs.canvas;
      this.loaded = Object.assign(document.createElement("canvas"), { width, height });
      const pen = this.loaded.getContext("2d");
      if (picture.naturalWidth) pen.drawImage(picture, 0, 0, width, height);
      const pixels = pen.getImageData(0, 0, width, height);
      for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set([...PAINT, pixels.data[i]], i);
      pen.putImageData(pixels, 0, 0);
    },
    keep() {
      try {
        sessionStorage.setItem(MASK_STORE, JSON.stringify({ name: this.name, operations: this.operations }));
      } catch { /* a full store only costs the mask at the next reload */ }
    },
    pen() { return this.$refs.canvas.getContext("2d", { willReadFrequently: true }); },
    place(event) {
      const box = this.$refs.canvas.getBoundingClientRect();
      const scale = this.$refs.canvas.width / box.width;
      const width = (this.brush / 100) * Math.max(box.width, box.height);
      this.cursor = {
        left: `${event.clientX - box.left}px`, top: `${event.clientY - box.top}px`, width: `${width}px`, height: `${width}px`,
      };
      return { x: Math.round((event.clientX - box.left) * scale), y: Math.round((event.clientY - box.top) * scale), width: width * scale };
    },
    begin(event) {
      if (!this.painting || event.button > 0) return;
      event.preventDefault();
      event.target.setPointerCapture(event.pointerId);
      const { x, y, width } = this.place(event);
      this.stroke = { kind: "stroke", erase: this.erasing || event.shiftKey, width: Math.round(width), points: [x, y] };
      this.draw({ ...this.stroke, points: [x, y, x, y] });
    },
    move(event) {
      if (!this.painting) return;
      const { x, y } = this.place(event);
      if (!this.stroke) return;
      const from = this.stroke.points.slice(-2);
      this.stroke.points.push(x, y);
      this.draw({ ...this.stroke, points: [...from, x, y] });
    },
    end() {
      if (!this.stroke) return;
      const stroke = this.stroke;
      this.stroke = null;
      this.operations.push(stroke);
      this.keep();
      this.look();
    },
    add(operation) {
      this.operations.push(operation);
      this.keep();
      this.redraw();
    },
    undo() {
      this.operations.pop();
      this.keep();
      this.redraw();
    },
    redraw() {
      const { canvas } = this.$refs;
      this.pen().clearRect(0, 0, canvas.width, canvas.height);
      this.operations.forEach(this.draw);
      this.look();
    },
    draw(operation) {
      const { canvas } = this.$refs;
      const pen = this.pen();
      pen.save();
      pen.fillStyle = pen.strokeStyle = `rgb(${PAINT})`;
      if (operation.kind === "picture") pen.drawImage(this.loaded, 0, 0);
      if (operation.kind === "clear") pen.clearRect(0, 0, canvas.width, canvas.height);
      if (operation.kind === "invert") {
        pen.globalCompositeOperation = "source-out";
        pen.fillRect(0, 0, canvas.width, canvas.height);
      }
      if (operation.kind === "stroke") {
        pen.globalCompositeOperation = operation.erase ? "destination-out" : "source-over";
        pen.lineCap = pen.lineJoin = "round";
        pen.lineWidth = operation.width;
        pen.beginPath();
        const [x, y, ...rest] = operation.points;
        pen.moveTo(x, y);
        pen.lineTo(x, y);
        for (let i = 0; i < rest.length; i += 2) pen.lineTo(rest[i], rest[i + 1]);
        pen.stroke();
      }
      pen.restore();
    },
    look() {
      const { canvas } = this.$refs;
      const pixels = this.pen().getImageData(0, 0, canvas.width, canvas.height).data;
      this.present = false;
      for (let i = 3; i < pixels.length && !this.present; i += 4) this.present = pixels[i] > 127;
      this.$emit("mask", { present: this.present });
    },
    // The mask as an input file of the server: white where the picture is to change. Returns its name, or null.
    async export_mask() {
      if (!this.source || !this.present) return null;
      const { canvas } = this.$refs;
      const paper = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
      const pen = paper.getContext("2d");
      pen.drawImage(canvas, 0, 0);
      pen.globalCompositeOperation = "source-in";
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, paper.width, paper.height);
      pen.globalCompositeOperation = "destination-over";
      pen.fillStyle = "#000";
      pen.fillRect(0, 0, paper.width, paper.height);
      const blob = await new Promise((done) => paper.toBlob(done, "image/png"));
      return (await this.send(new File([blob], "mask.png", { type: "image/png" }))).name;
    },
  },
};
