// The sound of the call: one sine of 440 Hz at −12 dBFS, so that a recording can be checked by measuring.

const FREQUENCY_HZ = 440;
const LEVEL = 10 ** (-12 / 20);
/** A ramp instead of a step: no click. */
const RAMP_S = 0.02;

export class Tone {
  #context = null;
  #gain = null;

  /** Call it from a press: browsers let pages sound only after one. */
  unlock() {
    this.#context ??= new AudioContext({ sampleRate: 48_000 });
  }

  start() {
    this.unlock();
    if (!this.#gain) {
      this.#gain = this.#context.createGain();
      this.#gain.gain.value = 0;
      const source = new OscillatorNode(this.#context, { type: 'sine', frequency: FREQUENCY_HZ });
      source.connect(this.#gain).connect(this.#context.destination);
      source.start();
    }
    void this.#context.resume();
    this.#ramp(LEVEL);
  }

  pause() {
    if (this.#gain) this.#ramp(0);
  }

  stop() {
    const context = this.#context;
    this.#context = null;
    this.#gain = null;
    void context?.close();
  }

  #ramp(level) {
    const now = this.#context.currentTime;
    this.#gain.gain.cancelScheduledValues(now);
    this.#gain.gain.setTargetAtTime(level, now, RAMP_S / 3);
  }
}
