"use strict";
// Draws decoded signals that travel with the page. Every text is set as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [nSensors, nStates, nLayers, nTimes] = data.shape;
  const signals = unpack(data.signals);
  const now = { state: data.reference, sensor: 0, time: 0, what: "reference" };
  const root = document.getElementById("explorer");

  function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const perSensor = nStates * nLayers * nTimes;
    return Float32Array.from({ length: nSensors * perSensor }, (_, i) =>
      view.getInt16(2 * i, true) * data.scale[Math.floor(i / perSensor)]);
  }

  function curve(sensor, state, layer = 0) {
    const start = ((sensor * nStates + state) * nLayers + layer) * nTimes;
    return signals.subarray(start, start + nTimes);
  }

  function difference(sensor, state) {
    const reference = curve(sensor, data.reference);
    return curve(sensor, state).map((value, t) => value - reference[t]);
  }

  // The axes of a sensor hold whatever it may show, so that they stay while one drags.
  function range(sensor, pick) {
    let low = 0, high = 0;
    for (let state = 0; state < nStates; state++) {
      for (const values of pick(sensor, state)) {
        for (const value of values) {
          low = Math.min(low, value);
          high = Math.max(high, value);
        }
      }
    }
    return [low, high];
  }

  function padded([low, high]) {
    const margin = 0.04 * (high - low) || 1;
    return [low - margin, high + margin];
  }

  const layersOf = (sensor, state) =>
    Array.from({ length: nLayers }, (_, layer) => curve(sensor, state, layer));
  const changesOf = (sensor, state) => [difference(sensor, state)];
  const every = Array.from({ length: nSensors }, (_, sensor) => sensor);
  const centres = (sensor, state) => [curve(sensor, state)];
  const waveRanges = every.map((sensor) => padded(range(sensor, layersOf)));
  const changeRanges = every.map((sensor) => padded(range(sensor, changesOf)));

  // -- elements -------------------------------------------------------------------------------

  function make(parent, tag, attributes = {}, text = null) {
    const svg = ["svg", "path", "line", "text", "circle", "rect", "g", "title", "defs",
      "linearGradient", "stop"].includes(tag);
    const element = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== null) element.textContent = text;
    parent.append(element);
    return element;
  }

  const signed = (value, digits = 1) => {
    const text = Math.abs(value).toFixed(digits);
    return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
  };
  const plain = (value) => String(value).replace("-", "−");
  const decimals = (limit) => (limit < 1 ? 3 : limit < 10 ? 2 : 1);
  const when = (t) => data.axis === "sample" ? `sample ${data.times[t]}`
    : `${plain(Math.round(data.times[t]))} ms`;

  // -- waveforms ------------------------------------------------------------------------------

  const W = 640, LEFT = 46, RIGHT = 630;
  const panels = {
    wave: { top: 22, bottom: 240, title: "signal (µV)" },
    change: { top: 276, bottom: 396, title: "difference from the reference (µV)" },
  };
  const controls = make(root, "div", { id: "controls" });
  const middle = make(root, "div");
  const plot = make(middle, "svg", { viewBox: `0 0 ${W} 432`, class: "wave", role: "img",
    "aria-label": "waveform and its difference from the reference" });
  const first = data.times[0], last = data.times[nTimes - 1];
  const x = (t) => LEFT + (RIGHT - LEFT) * (data.times[t] - first) / (last - first || 1);
  const y = (panel, value, [low, high]) =>
    panel.bottom - (panel.bottom - panel.top) * (value - low) / (high - low);

  function path(values, panel, span) {
    return Array.from(values, (value, t) =>
      `${t ? "L" : "M"}${x(t).toFixed(1)} ${y(panel, value, span).toFixed(1)}`).join("");
  }

  function area(low, high, panel, span) {
    const back = Array.from(low, (value, t) =>
      `L${x(t).toFixed(1)} ${y(panel, value, span).toFixed(1)}`).reverse().join("");
    return `${path(high, panel, span)}${back}Z`;
  }

  function step(range) {
    const rough = range / 5, power = 10 ** Math.floor(Math.log10(rough));
    return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  }

  function ticks(low, high) {
    const by = step(high - low || 1), found = [];
    for (let i = Math.ceil(low / by - 1e-9); i * by <= high + 1e-9 * by; i++) {
      found.push(Number((i * by).toPrecision(6)));
    }
    return found;
  }

  function frame(panel) {
    panel.group = make(plot, "g");
    make(plot, "text", { x: LEFT, y: panel.top - 8, class: "title" }, panel.title);
  }
  Object.values(panels).forEach(frame);
  for (const value of ticks(first, last)) {
    const at = LEFT + (RIGHT - LEFT) * (value - first) / (last - first || 1);
    for (const panel of Object.values(panels)) {
      const kind = value === 0 ? "axis" : "tick";
      make(plot, "line", { x1: at, x2: at, y1: panel.bottom,
        y2: value === 0 ? panel.top : panel.bottom - 4, class: kind });
    }
    make(plot, "text", { x: at, y: 411, "text-anchor": "middle" }, plain(value));
  }
  make(plot, "text", { x: (LEFT + RIGHT) / 2, y: 427, "text-anchor": "middle" }, data.axis);
  const band = make(plot, "path", { class: "band", d: "" });
  const lines = Object.fromEntries(["reference", "now", "difference"].map((name) =>
    [name, make(plot, "path", { class: name, d: "" })]));
  const cursors = Object.values(panels).map((panel) =>
    make(plot, "line", { class: "cursor", y1: panel.top, y2: panel.bottom }));

  function scaleAxis(panel, span) {
    panel.group.replaceChildren();
    for (const value of ticks(...span)) {
      const at = y(panel, value, span);
      make(panel.group, "line", { x1: LEFT, x2: RIGHT, y1: at, y2: at,
        class: value === 0 ? "axis" : "zero", opacity: value === 0 ? 1 : 0.5 });
      make(panel.group, "text", { x: LEFT - 5, y: at + 4, "text-anchor": "end" }, plain(value));
    }
  }

  function drawWave() {
    const own = waveRanges[now.sensor], change = changeRanges[now.sensor];
    scaleAxis(panels.wave, own);
    scaleAxis(panels.change, change);
    lines.reference.setAttribute("d",
      path(curve(now.sensor, data.reference), panels.wave, own));
    lines.now.setAttribute("d", path(curve(now.sensor, now.state), panels.wave, own));
    lines.difference.setAttribute("d",
      path(difference(now.sensor, now.state), panels.change, change));
    if (nLayers === 3) {
      band.setAttribute("d", area(curve(now.sensor, now.state, 1),
        curve(now.sensor, now.state, 2), panels.wave, own));
    }
    for (const line of cursors) {
      line.setAttribute("x1", x(now.time));
      line.setAttribute("x2", x(now.time));
    }
  }

  // -- maps of the head -----------------------------------------------------------------------

  const STOPS = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]];

  function colour(share) {
    const at = Math.min(3.999, Math.max(0, 2 * (share + 1))), low = Math.floor(at);
    const mix = STOPS[low].map((c, i) => Math.round(c + (at - low) * (STOPS[low + 1][i] - c)));
    return `rgb(${mix.join(",")})`;
  }

  const maps = data.places ? ["signal", "difference"].map(makeMap) : [];

  function makeMap(title) {
    const holder = document.getElementById("maps") || make(root, "div", { id: "maps" });
    const reach = Math.max(1.1, ...data.places.map(([a, b]) => Math.hypot(a, b) + 0.1));
    const size = 80 / reach;
    const svg = make(holder, "svg", { viewBox: "0 0 176 214", role: "img",
      "aria-label": `${title} at every sensor` });
    const name = make(svg, "text", { x: 88, y: 11, "text-anchor": "middle", class: "title" });
    make(svg, "path", { class: "head",
      d: `M77 ${105 - size}L88 ${90 - size}L99 ${105 - size}` });
    make(svg, "circle", { class: "head", cx: 88, cy: 103, r: size });
    const radius = Math.max(3, Math.min(9, 34 / Math.sqrt(nSensors)));
    const dots = data.places.map(([a, b], sensor) => {
      const dot = make(svg, "circle", { class: "sensor", r: radius,
        cx: 88 + size * a, cy: 103 - size * b });
      make(dot, "title", {}, data.sensors[sensor]);
      dot.addEventListener("click", () => chooseSensor(sensor));
      return dot;
    });
    const id = `scale-${title}`;
    const gradient = make(make(svg, "defs"), "linearGradient", { id });
    STOPS.forEach((_, i) => make(gradient, "stop", { offset: i / 4, "stop-color":
      colour(i / 2 - 1) }));
    make(svg, "rect", { x: 38, y: 191, width: 100, height: 7, fill: `url(#${id})` });
    const ends = [38, 88, 138].map((at) =>
      make(svg, "text", { x: at, y: 210, "text-anchor": "middle" }));
    const pick = title === "signal" ? centres : changesOf;
    const limit = Math.max(...every.flatMap((s) => range(s, pick)).map(Math.abs)) || 1;
    [-limit, 0, limit].forEach((v, i) => { ends[i].textContent = v ? signed(v) : "0 µV"; });
    return { title, name, dots, limit };
  }

  function drawMaps() {
    for (const map of maps) {
      const pick = map.title === "signal" ? curve : difference;
      map.name.textContent = `${map.title}, ${when(now.time)}`;
      map.dots.forEach((dot, sensor) => {
        dot.setAttribute("fill", colour(pick(sensor, now.state)[now.time] / map.limit));
        dot.classList.toggle("chosen", sensor === now.sensor);
      });
    }
  }

  // -- controls -------------------------------------------------------------------------------

  const bottom = make(root, "div", { id: "bottom" });
  const row = make(middle, "div", { class: "row" });
  const sensorLabel = make(row, "label", {}, "sensor");
  const sensorChoice = make(sensorLabel, "select", { id: "sensor" });
  data.sensors.forEach((name, i) => make(sensorChoice, "option", { value: i }, name));
  sensorChoice.addEventListener("change", () => chooseSensor(Number(sensorChoice.value)));
  const timeLabel = make(row, "label", {}, "time");
  const timeChoice = make(timeLabel, "input", { id: "time", type: "range", min: 0,
    max: nTimes - 1, step: 1 });
  timeChoice.addEventListener("input", () => chooseTime(Number(timeChoice.value)));
  const legend = make(row, "span", { class: "legend" });
  [["#0072b2", "now", ""], ["#777", "reference", " dashed"], ["#d55e00", "difference", ""]]
    .forEach(([shade, name, dashed]) => {
      const swatch = make(legend, "span", { class: `swatch${dashed}` });
      swatch.style.borderColor = shade;
      legend.append(name);
    });
  if (nLayers === 3) {
    make(legend, "span", { class: "swatch wide" });
    legend.append("samples");
  }
  const readout = make(middle, "div", { id: "readout", "aria-live": "polite" });
  make(bottom, "p", { id: "note" }, data.note);

  function draw() {
    drawWave();
    drawMaps();
    sensorChoice.value = now.sensor;
    timeChoice.value = now.time;
    timeChoice.setAttribute("aria-valuetext", when(now.time));
    const digits = decimals(waveRanges[now.sensor][1]);
    const value = curve(now.sensor, now.state)[now.time];
    const change = difference(now.sensor, now.state)[now.time];
    readout.textContent = `${now.what} · ${data.sensors[now.sensor]} at ${when(now.time)}: ` +
      `${signed(value, digits)} µV, ${signed(change, digits)} µV from the reference`;
  }

  function chooseSensor(sensor) {
    now.sensor = sensor;
    draw();
  }

  function chooseTime(time) {
    now.time = Math.min(nTimes - 1, Math.max(0, time));
    draw();
  }

  function follow(event) {
    const box = plot.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * W - LEFT) / (RIGHT - LEFT);
    chooseTime(Math.round(share * (nTimes - 1)));
  }
  plot.addEventListener("pointerdown", (event) => {
    plot.setPointerCapture(event.pointerId);
    follow(event);
  });
  plot.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });

  function button(parent, text, action, attributes = {}) {
    const made = make(parent, "button", { type: "button", ...attributes }, text);
    made.addEventListener("click", action);
    return made;
  }

  function lookWhereLargest(states) {
    let most = -1;
    for (const state of states) {
      for (const sensor of every) {
        difference(sensor, state).forEach((value, time) => {
          if (Math.abs(value) > most) {
            most = Math.abs(value);
            Object.assign(now, { sensor, time });
          }
        });
      }
    }
    draw();
  }

  // Where the figure stands now; at the reference, wherever it may go.
  function largestEffect(states) {
    const moved = now.what !== "reference" && now.what !== "no label";
    lookWhereLargest(moved ? [now.state] : states);
  }

  // -- one latent at a time -------------------------------------------------------------------

  function latentControls() {
    const middleValue = data.reference, n = data.values.length;
    const value = (i) => i === middleValue ? "0" : signed(data.values[i]);
    const all = data.sliders.map((slider, latent) => {
      const box = make(controls, "div", { class: "control" });
      const label = make(box, "label", { for: `latent-${latent}` });
      const name = slider.name ? `${slider.label}: ${slider.name}` : slider.label;
      make(label, "span", {}, name);
      const output = make(label, "output", { for: `latent-${latent}` });
      const input = make(box, "input", { id: `latent-${latent}`, type: "range", min: 0,
        max: n - 1, step: 1, value: middleValue });
      make(box, "small", {}, slider.detail);
      input.addEventListener("input", () => turn(latent, Number(input.value)));
      return { box, output, input, name };
    });
    let moved = 0;

    function turn(latent, to) {
      moved = latent;
      all.forEach((one, i) => {
        const at = i === latent ? to : middleValue;
        one.input.value = at;
        one.input.setAttribute("aria-valuetext", `${value(at)} ${data.unit}`);
        one.output.textContent = at === middleValue ? "0" : `${value(at)} ${data.unit}`;
        one.box.classList.toggle("moved", at !== middleValue);
      });
      now.state = latent * n + to;
      now.what = to === middleValue ? "reference" : `${all[latent].name} at ${value(to)}`;
      draw();
    }

    const below = make(controls, "div", { class: "row" });
    button(below, "Reset", () => turn(moved, middleValue), { id: "reset" });
    const states = (latent) => data.values.map((_, i) => latent * n + i);
    button(below, "Largest effect", () => largestEffect(states(moved)), { id: "largest" });
    turn(0, middleValue);
    largestEffect(states(0));
  }

  // -- sets of labels -------------------------------------------------------------------------

  function labelControls() {
    let chosen = []; // [label, value], the latest last
    const all = data.groups.map((group, label) => {
      const box = make(controls, "fieldset");
      make(box, "legend", {}, group.label);
      return group.values.map((text, value) => button(box, text, () => choose(label, value), {
        id: `label-${label}-${value}`, "aria-pressed": "false" }));
    });

    function choose(label, value) {
      const again = chosen.some(([l, v]) => l === label && v === value);
      chosen = chosen.filter(([l]) => l !== label);
      if (!again) chosen.push([label, value]);
      chosen = chosen.slice(-data.depth);
      update();
    }

    function update() {
      const sorted = [...chosen].sort((a, b) => a[0] - b[0]);
      now.state = data.states[sorted.map((pair) => pair.join(":")).join(",")];
      now.what = sorted.map(([l, v]) => `${data.groups[l].label} ${data.groups[l].values[v]}`)
        .join(", ") || "no label";
      all.forEach((row, l) => row.forEach((made, v) => made.setAttribute("aria-pressed",
        String(chosen.some(([a, b]) => a === l && b === v)))));
      draw();
    }

    const below = make(controls, "div", { class: "row" });
    button(below, "Reset", () => { chosen = []; update(); }, { id: "reset" });
    const states = Object.values(data.states);
    button(below, "Largest effect", () => largestEffect(states), { id: "largest" });
    update();
    largestEffect(states);
  }

  if (data.kind === "latents") latentControls();
  else labelControls();
})();
