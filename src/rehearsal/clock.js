// The moving picture of the call: a time code and a sweeping bar. Fifteen pictures a second, and only what changed is
// drawn again, for these pages also run where a processor has to draw them.

const FRAME_MS = 1000 / 15;

/** Draws into `canvas` until the returned function is called. */
export function startClock(canvas) {
  const context = canvas.getContext('2d', { alpha: false });
  const style = getComputedStyle(canvas);
  const colours = {
    back: style.getPropertyValue('--clock-back').trim(),
    ink: style.getPropertyValue('--clock-ink').trim(),
    faint: style.getPropertyValue('--clock-faint').trim(),
    accent: style.getPropertyValue('--accent').trim(),
  };
  const { width, height } = canvas;
  const began = performance.now();
  context.fillStyle = colours.back;
  context.fillRect(0, 0, width, height);
  context.textBaseline = 'middle';
  context.textAlign = 'center';

  const draw = () => {
    const elapsed = performance.now() - began;
    context.fillStyle = colours.back;
    context.fillRect(0, 0, width, 100);
    context.fillStyle = colours.ink;
    context.font = '600 64px ui-monospace, "DejaVu Sans Mono", monospace';
    context.fillText(timeCode(elapsed), width / 2, 56);
    const track = { x: 24, y: 116, width: width - 48, height: 10 };
    context.fillStyle = colours.faint;
    context.fillRect(track.x, track.y, track.width, track.height);
    context.fillStyle = colours.accent;
    context.fillRect(track.x, track.y, track.width * ((elapsed % 2000) / 2000), track.height);
  };
  draw();
  const timer = setInterval(draw, FRAME_MS);
  return () => clearInterval(timer);
}

/** Minutes, seconds and hundredths. */
function timeCode(elapsedMs) {
  const pad = (value) => String(Math.floor(value)).padStart(2, '0');
  return `${pad(elapsedMs / 60_000)}:${pad((elapsedMs / 1000) % 60)}.${pad((elapsedMs / 10) % 100)}`;
}
