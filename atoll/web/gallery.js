// Past pictures, loaded a page at a time as they come into view, and the viewer that shows one with its parameters.
const PAGE = 48;

export default {
  template: `
    <section class="gallery" :aria-label="texts.gallery">
      <h2>{{ texts.gallery }}</h2>
      <p v-if="ended && !pictures.length" class="gallery__empty">{{ texts.gallery_empty }}</p>
      <ul class="gallery__grid">
        <li v-for="(picture, index) in pictures" :key="picture.number">
          <button type="button" :aria-label="name(picture)" @click="show(index)">
            <img :src="picture.thumbnail_url" alt="" loading="lazy" decoding="async" draggable="true" @dragstart="drag($event, picture)" /></button>
        </li>
      </ul>
      <p v-if="fault" class="gallery__empty" role="alert">{{ texts.gallery_failed }}
        <button type="button" class="button button--quiet" @click="more">{{ texts.retry }}</button></p>
      <div ref="tail" class="gallery__tail"></div>

      <dialog ref="viewer" class="viewer" :aria-label="texts.viewer" @click="outside" @keydown="keys" @close="close">
        <div v-if="current" class="viewer__inner">
          <div class="viewer__picture">
            <img :src="current.file_url" :alt="current.filename" :key="current.sha256" />
            <button type="button" class="viewer__turn viewer__turn--back" :disabled="at === 0" :aria-label="texts.previous" @click="turn(-1)"><span class="icon" aria-hidden="true">chevron_left</span></button>
            <button type="button" class="viewer__turn viewer__turn--on" :disabled="at === pictures.length - 1" :aria-label="texts.next" @click="turn(1)"><span class="icon" aria-hidden="true">chevron_right</span></button>
          </div>
          <aside class="viewer__side">
            <button type="button" class="tool tool--icon viewer__close" :title="texts.close" :aria-label="texts.close" @click="$refs.viewer.close()"><span class="icon" aria-hidden="true">close</span></button>
            <dl v-if="details.sha256 === current.sha256">
              <template v-for="row in details.rows"><dt>{{ row[0] }}</dt><dd :class="{long: row[2]}">{{ row[1] }}</dd></template>
            </dl>
            <div class="viewer__tools">
              <button type="button" class="button" @click="act('reuse', current.sha256)">{{ texts.reuse }}</button>
              <button type="button" class="button button--quiet" @click="act('start', current.file_url)">{{ texts.use_as_start }}</button>
              <button v-if="details.sha256 === current.sha256 && details.seed !== null" type="button" class="button button--quiet" @click="copy">{{ copied ? texts.copied : texts.copy_seed }}</button>
              <a class="button button--quiet" :href="current.file_url" :download="current.filename">{{ texts.download }}</a>
            </div>
          </aside>
        </div>
      </dialog>
    </section>
  `,
  props: { url: String, details: Object },
  emits: ["look", "reuse", "start"],
  data() { return { texts: studio.texts, pictures: [], ended: false, loading: false, fault: false, at: null, copied: false }; },
  computed: {
    current() { return this.at === null ? null : this.pictures[this.at]; },
  },
  mounted() {
    this.watcher = new IntersectionObserver(([entry]) => { if (entry.isIntersecting) this.more(); }, { rootMargin: "600px" });
    this.watcher.observe(this.$refs.tail);
  },
  unmounted() { this.watcher.disconnect(); },
  methods: {
    name(picture) { return this.texts.gallery_open.replace("{name}", picture.filename); },
    async page(before) {
      const answer = await fetch(`${this.url}?limit=${PAGE}` + (before === null ? "" : `&before=${before}`));
      if (!answer.ok) throw new Error(answer.statusText);
      return (await answer.json()).map((picture) => {
        const address = `${this.url}/${picture.sha256}`;
        return { ...picture, file_url: `${address}/file`, thumbnail_url: `${address}/thumbnail` };
      });
    },
    async more() {
      if (this.loading || this.ended) return;
      this.loading = true;
      this.fault = false;
      try {
        const page = await this.page(this.pictures.at(-1)?.number ?? null);
        this.merge(page);
        this.ended = page.length < PAGE;
      } catch { this.fault = true; }
      this.loading = false;
      if (!this.ended && !this.fault) { // a tail still in view is not told to the observer again
        await this.$nextTick();
        if (this.$refs.tail?.getBoundingClientRect().top < innerHeight + 600) this.more();
      }
    },
    // Something new was made, here or at another door.
    async refresh() {
      try { this.merge(await this.page(null)); } catch { /* the next refresh catches up */ }
    },
    merge(page) {
      const open = this.current?.number;
      const all = new Map([...this.pictures, ...page].map((picture) => [picture.number, picture]));
      this.pictures = [...all.values()].sort((one, other) => other.number - one.number);
      if (open !== undefined) this.at = this.pictures.findIndex((picture) => picture.number === open);
    },
    async open(sha256) {
      let index = this.pictures.findIndex((picture) => picture.sha256 === sha256);
      if (index < 0) {
        await this.refresh();
        index = this.pictures.findIndex((picture) => picture.sha256 === sha256);
      }
      if (index >= 0) this.show(index);
    },
    show(index) {
      this.at = index;
      this.copied = false;
      this.$emit("look", { sha256: this.current.sha256 });
      if (!this.$refs.viewer.open) this.$refs.viewer.showModal();
    },
    turn(by) {
      const index = this.at + by;
      if (index < 0 || index >= this.pictures.length) return;
      this.show(index);
      if (index > this.pictures.length - 8) this.more();
    },
    keys(event) {
      if (event.key === "ArrowLeft") this.turn(-1);
      if (event.key === "ArrowRight") this.turn(1);
    },
    outside(event) { if (event.target === this.$refs.viewer) this.$refs.viewer.close(); },
    close() { this.at = null; },
    act(what, about) {
      this.$refs.viewer.close();
      this.$emit(what, about);
    },
    async copy() {
      await window.studio.copy(String(this.details.seed));
      this.copied = true;
    },
    drag(event, picture) { event.dataTransfer.setData("text/uri-list", new URL(picture.file_url, location.href).href); },
  },
};
