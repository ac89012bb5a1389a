// The picture being made, what came of it, and the jobs that wait.
export default {
  template: `
    <section class="stage" :aria-label="texts.stage">
      <div class="stage__board" :class="'stage__board--' + view.phase">
        <div v-if="view.phase === 'empty'" class="stage__empty">
          <svg viewBox="0 0 120 72" aria-hidden="true"><path d="M4 60c18-9 30-9 48 0s36 9 64 0" /><path d="M20 46c8-20 24-32 44-32 16 0 30 8 38 22-10-8-24-12-38-12-18 0-34 8-44 22z" /></svg>
          <h2>{{ texts.empty_title }}</h2>
          <p>{{ texts.empty_hint }}</p>
          <div class="chips" role="group" :aria-label="texts.examples">
            <span class="chips__title">{{ texts.examples }}</span>
            <button v-for="example in view.examples" type="button" class="chip" @click="$emit('example', example.prompt)">{{ example.label }}</button>
          </div>
        </div>

        <div v-else-if="busy" class="stage__making">
          <div class="stage__canvas" :style="{aspectRatio: view.width + ' / ' + view.height, '--ratio': view.width / view.height}">
            <img v-if="view.preview" :src="view.preview" :alt="texts.preview" />
            <span v-else class="stage__shimmer" aria-hidden="true"></span>
          </div>
          <div class="stage__status">
            <div class="stage__line">
              <b>{{ view.title }}</b><span>{{ view.detail }}</span>
              <button type="button" class="button button--quiet" :disabled="view.cancelling" @click="$emit('cancel', view.job_id)">
                {{ view.cancelling ? texts.cancelling : texts.cancel }}</button>
            </div>
            <div class="bar" :class="{'bar--unknown': view.fraction === null}" role="progressbar" :aria-label="texts.progress"
              aria-valuemin="0" aria-valuemax="100" :aria-valuenow="view.fraction === null ? undefined : Math.round(100 * view.fraction)" :aria-valuetext="view.title">
              <i :style="{width: view.fraction === null ? undefined : 100 * view.fraction + '%'}"></i></div>
            <p v-if="view.prompt" class="stage__prompt">{{ view.prompt }}</p>
          </div>
        </div>

        <div v-else-if="view.phase === 'done'" class="stage__done">
          <div class="results" :class="{'results--many': view.pictures.length > 1}" :style="{'--columns': [1, 1, 2, 3, 2][view.pictures.length] ?? 3}">
            <figure v-for="(picture, index) in view.pictures" :key="picture.key" class="result">
              <button type="button" class="result__open" :aria-label="picture.label" @click="$emit('open', picture.sha256)"
                :style="{aspectRatio: picture.width + ' / ' + picture.height, '--ratio': picture.width / picture.height}">
                <img :src="picture.url" :alt="view.prompt || texts.no_prompt" :width="picture.width" :height="picture.height" /></button>
              <figcaption>
                <span class="result__facts"><span v-if="view.pictures.length > 1">{{ index + 1 }}/{{ view.pictures.length }}</span><span>{{ picture.width }} × {{ picture.height }}</span>
                  <span v-if="view.took && view.pictures.length === 1">{{ view.took }}</span>
                  <span v-if="picture.seed !== null">{{ texts.seed }} <b>{{ picture.seed }}</b></span></span>
                <span class="result__tools">
                  <button type="button" class="tool" @click="$emit('reuse', picture.sha256)" :title="texts.reuse"><span class="icon" aria-hidden="true">replay</span><span class="tool__word">{{ texts.reuse }}</span></button>
                  <button type="button" class="tool" @click="$emit('start', picture.url)" :title="texts.use_as_start"><span class="icon" aria-hidden="true">add_photo_alternate</span><span class="tool__word">{{ texts.use_as_start }}</span></button>
                  <button v-if="picture.seed !== null" type="button" class="tool" @click="copy(picture)" :title="texts.copy_seed"><span class="icon" aria-hidden="true">{{ copied === picture.key ? 'check' : 'content_copy' }}</span><span class="tool__word">{{ copied === picture.key ? texts.copied : texts.copy_seed }}</span></button>
                  <a class="tool" :href="picture.url" :download="picture.filename" :title="texts.download"><span class="icon" aria-hidden="true">download</span><span class="tool__word">{{ texts.download }}</span></a>
                </span>
              </figcaption>
            </figure>
          </div>
        </div>

        <div v-else class="stage__end" :role="view.phase === 'failed' ? 'alert' : undefined">
          <span class="icon" aria-hidden="true">{{ view.phase === 'failed' ? 'error_outline' : 'block' }}</span>
          <h2>{{ view.title }}</h2>
          <p>{{ view.detail }}</p>
        </div>
        <p class="unseen" role="status" aria-live="polite">{{ spoken }}</p>
      </div>

      <div v-if="queue.length" class="queue">
        <h2>{{ texts.queue }} <small>{{ queue.length }}</small></h2>
        <ol>
          <li v-for="job in queue" :key="job.job_id" :class="{'queue__job--shown': job.shown}">
            <span class="queue__state" :class="'queue__state--' + job.state">{{ job.state_words }}</span>
            <span class="queue__prompt">{{ job.prompt }}</span>
            <button v-if="!job.shown" type="button" class="tool" @click="$emit('show', job.job_id)">{{ texts.queue_show }}</button>
            <button type="button" class="tool tool--icon" :title="job.cancel_words" :aria-label="job.cancel_words" @click="$emit('cancel', job.job_id)"><span class="icon" aria-hidden="true">close</span></button>
          </li>
        </ol>
      </div>
    </section>
  `,
  props: { view: Object, queue: Array },
  emits: ["example", "cancel", "show", "open", "reuse", "start"],
  data() { return { texts: studio.texts, copied: null }; },
  watch: {
    // So that a tab in the background tells how far it is.
    view({ fraction }) {
      const percent = this.busy && fraction !== null ? `${Math.round(100 * fraction)} % · ` : "";
      document.title = percent + this.texts.title;
    },
  },
  computed: {
    busy() { return this.view.phase === "waiting" || this.view.phase === "running"; },
    // Said aloud when something turns, not at each step.
    spoken() { return this.busy ? this.view.spoken : this.view.title; },
  },
  methods: {
    async copy(picture) {
      await window.studio.copy(String(picture.seed));
      this.copied = picture.key;
      setTimeout(() => { this.copied = null; }, 1500);
    },
  },
};
