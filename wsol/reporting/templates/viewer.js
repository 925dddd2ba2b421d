// Layers: one state for each section, shared by its small pictures and the viewer, so that what is set in one is seen in the other.
const COLORS = HEAT.match(/../g).map((v) => parseInt(v, 16));
const LINE = [20, 20, 20], TRUTH = [0, 200, 80], WHITE = [255, 255, 255];

function loaded(uri) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = failed;
    image.src = uri;
  });
}

// The red channel of a picture, made `width` x `height` px, and where it is opaque.
function channel(image, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const values = new Uint8Array(width * height), drawn = new Uint8Array(width * height);
  for (let i = 0; i < values.length; i++) [values[i], drawn[i]] = [data[4 * i], data[4 * i + 3] > 127];
  return { values, drawn };
}

// px of the border of what is inside, `reach` px to either side.
function border(inside, width, height, reach) {
  const found = new Uint8Array(inside.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const i = y * width + x;
      if ((x + 1 < width && inside[i] !== inside[i + 1]) || (y + 1 < height && inside[i] !== inside[i + width]))
        for (let v = Math.max(0, y - reach); v <= Math.min(height - 1, y + reach); v++)
          found.fill(1, v * width + Math.max(0, x - reach), v * width + Math.min(width, x + reach + 1));
    }
  return found;
}

function paint(pixels, where, [r, g, b], alpha = 255) {
  for (let i = 0; i < where.length; i++) if (where[i]) pixels.set([r, g, b, alpha], 4 * i);
}

// The threshold of a map in one sample: where the reader has put it, else the chosen one.
const thresholdOf = (card, state) => state.threshold ?? card.numbers[state.map]?.threshold ?? null;

// Draws heat, outline of the mask and line of the threshold; says how map and mask overlap in these px, null without one of them.
async function draw(canvas, card, state, longest) {
  const [heat, mask] = await Promise.all([card.heats[state.map], card.mask].map((uri) => uri && loaded(uri)));
  const size = heat || mask;
  canvas.hidden = !size;
  if (!size) return null;
  const enlarged = longest / Math.max(size.width, size.height);
  const [width, height] = [Math.round(size.width * enlarged), Math.round(size.height * enlarged)];
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d"), picture = context.createImageData(width, height), pixels = picture.data;
  const scores = heat && channel(heat, width, height), truth = mask && channel(mask, width, height).values.map((v) => v > 127);
  const threshold = thresholdOf(card, state), reach = longest > 700 ? 1 : 0;
  let flagged = null;
  if (scores) {
    for (let i = 0; i < scores.values.length; i++) {
      const v = scores.values[i];
      if (scores.drawn[i])
        pixels.set([COLORS[3 * v], COLORS[3 * v + 1], COLORS[3 * v + 2], state.opacity * v], 4 * i);
    }
    if (threshold !== null) flagged = scores.values.map((v, i) => scores.drawn[i] && v / 255 >= threshold);
    if (flagged && state.line) paint(pixels, border(flagged, width, height, reach), LINE);
  }
  if (truth && state.mask) {
    paint(pixels, border(truth, width, height, reach + 1), WHITE, 200);
    paint(pixels, border(truth, width, height, reach), TRUTH);
  }
  context.putImageData(picture, 0, 0);
  return flagged && truth ? overlap(flagged, truth) : null;
}

function overlap(flagged, truth) {
  let both = 0, either = 0;
  for (let i = 0; i < truth.length; i++) [both, either] = [both + (flagged[i] && truth[i]), either + flagged[i] + truth[i]];
  return truth.includes(1) ? (2 * both) / either : null;
}

const percent = (v) => (100 * v).toFixed(1);

function words(card, state, measured) {
  const known = card.numbers[state.map];
  if (!known) return state.map < 0 ? "" : "no map";
  if (state.threshold !== null) return measured === null ? "" : `Dice ≈ ${percent(measured)} at ${percent(state.threshold)}`;
  if (known.dice === null) return known.flagged_area === null ? "" : `flagged area ${percent(known.flagged_area)}`;
  return `Dice ${percent(known.dice)}` + (known.pxap === null ? "" : ` · PxAP ${percent(known.pxap)}`);
}

// A form of layers: reads the state, writes it, and calls `changed`.
function bind(form, state, changed) {
  const threshold = form.elements.threshold, chosen = form.elements.chosen, said = form.querySelector("output");
  const show = (card) => {
    [...form.elements.map].forEach((radio) => (radio.checked = Number(radio.value) === state.map));
    form.elements.mask.checked = state.mask;
    form.elements.line.checked = state.line;
    form.elements.opacity.value = 100 * state.opacity;
    const at = card ? thresholdOf(card, state) : state.threshold;
    if (at !== null) threshold.value = 100 * at;
    said.textContent = at === null ? "as chosen" : state.threshold === null ? `${percent(at)} chosen` : percent(at);
    chosen.disabled = state.threshold === null;
    threshold.disabled = state.map < 0;
  };
  form.addEventListener("input", (event) => {
    const { name, value, checked } = event.target;
    if (name === "map") Object.assign(state, { map: Number(value), threshold: null });
    if (name === "mask" || name === "line") state[name] = checked;
    if (name === "opacity") state.opacity = value / 100;
    if (name === "threshold") state.threshold = value / 100;
    changed();
  });
  chosen.addEventListener("click", () => {
    state.threshold = null;
    changed();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  return show;
}

const dialog = document.getElementById("viewer"), stage = dialog.querySelector(".stage"), desk = dialog.querySelector(".desk");
let osd = null, shown = null;

function openViewer(album, index) {
  shown = { ...album, index, form: album.form.cloneNode(true), canvas: document.createElement("canvas") };
  desk.replaceChildren(shown.form);
  shown.show = bind(shown.form, album.state, album.changed);
  if (!dialog.open) dialog.showModal();
  osd ??= started();
  step(0);
}

function started() {
  const made = OpenSeadragon({
    element: stage, drawer: "canvas", showNavigationControl: false, showNavigator: true, navigatorPosition: "BOTTOM_RIGHT",
    visibilityRatio: 0.6, minZoomImageRatio: 0.8, maxZoomPixelRatio: 8, animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.4,
    crossOriginPolicy: false, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  });
  made.addHandler("update-viewport", scaleBar);
  return made;
}

function step(by) {
  const { cards, figures } = shown;
  shown.index = (shown.index + by + cards.length) % cards.length;
  const card = cards[shown.index], image = figures[shown.index].querySelector("img");
  document.getElementById("viewer-name").textContent = [card.sample, card.label].filter(Boolean).join(" · ");
  dialog.querySelector("footer").textContent = card.files.length ? `Full resolution: ${card.files.join(" · ")}` : "";
  osd.clearOverlays();
  osd.addOnceHandler("open", () => {
    const { x, y } = osd.world.getItemAt(0).getContentSize();
    osd.addOverlay({ element: shown.canvas, location: osd.viewport.imageToViewportRectangle(0, 0, x, y) });
    redraw();
    scaleBar();
  });
  osd.open({ type: "image", url: image.src });
  stage.querySelector(".openseadragon-canvas")?.focus();
}

async function redraw() {
  if (!dialog.open) return;
  const { cards, state, canvas, show, index } = shown;
  const measured = await draw(canvas, cards[index], state, 1400);
  show(cards[index]);
  dialog.querySelector("header .numbers").textContent = words(cards[index], state, measured);
}

// A length of 1, 2 or 5 x 10^n micrometers that takes less than a quarter of the width.
function scaleBar() {
  const bar = stage.querySelector(".scale") ?? stage.appendChild(Object.assign(document.createElement("div"), { className: "scale" }));
  const { mpp } = shown.cards[shown.index];
  const item = osd.world.getItemAt(0);
  bar.hidden = !mpp || !item;
  if (bar.hidden) return;
  const each = mpp / item.viewportToImageZoom(osd.viewport.getZoom(true)), limit = (each * stage.clientWidth) / 4;
  const power = 10 ** Math.floor(Math.log10(limit)), length = power * [5, 2, 1].find((m) => m * power <= limit);
  bar.style.width = `${length / each}px`;
  bar.textContent = length < 1000 ? `${Number(length.toPrecision(1))} µm` : `${length / 1000} mm`;
}

dialog.addEventListener("click", ({ target }) => {
  const { step: by, zoom, close } = target.dataset;
  if (by) step(Number(by));
  if (zoom) Number(zoom) ? osd.viewport.zoomBy(Number(zoom)).applyConstraints() : osd.viewport.goHome();
  if (close !== undefined) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  const by = { PageUp: -1, PageDown: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  step(by);
});

for (const part of document.querySelectorAll(".pictures[data-section]")) {
  const data = document.getElementById(`${part.dataset.section}-layers`);
  if (!data) continue;
  const cards = JSON.parse(data.textContent), figures = [...part.querySelectorAll(".card")], form = part.querySelector("form.layers");
  const state = { map: 0, mask: true, line: true, opacity: 0.7, threshold: null };
  const seen = new Set();
  const one = async (i) => {
    const measured = await draw(figures[i].querySelector("canvas"), cards[i], state, 360);
    figures[i].querySelector(".numbers").textContent = words(cards[i], state, measured);
  };
  const album = { cards, figures, state, form };
  const show = bind(form, state, (album.changed = () => {
    show(null);
    seen.forEach(one);
    redraw();
  }));
  // Pictures are drawn when they come into view, and only then: a page may have hundreds.
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const i = figures.indexOf(target);
      isIntersecting ? seen.add(i) : seen.delete(i);
      if (isIntersecting) one(i);
    }
  }, { rootMargin: "300px" });
  figures.forEach((figure, i) => {
    watch.observe(figure);
    figure.querySelector("button.open")?.addEventListener("click", () => openViewer(album, i));
  });
  show(null);
}
