"use strict";
// Draws the numbers of a figure anew, so that they answer to mouse, touch and keyboard. Texts only ever become text.
(() => {
  const SVG = document.querySelector("svg")?.namespaceURI;
  const EDGE = { left: 52, right: 24, top: 10, bottom: 36 };

  const set = (node, attributes) => {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  const make = (tag, attributes = {}, ...inside) => {
    const drawn = ["svg", "g", "path", "line", "circle", "text"].includes(tag);
    const node = set(drawn ? document.createElementNS(SVG, tag) : document.createElement(tag), attributes);
    node.append(...inside);
    return node;
  };

  const swatch = (color) => make("i", { class: "swatch", style: `background: ${color}` });

  const said = (value) => {
    if (value == null) return "–";
    const small = value !== 0 && Math.abs(value) < 1e-3;
    if (small || Math.abs(value) >= 1e6) return Number(value.toPrecision(3)).toExponential();
    return Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
  };

  // --- axes ----------------------------------------------------------------------------------------------------------
  const decades = (low, high) => {
    const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const every = Math.ceil((last - first) / 5) || 1;
    const powers = Array.from({ length: 1 + (last - first) / every }, (_, k) => 10 ** (first + k * every));
    const tried = [[1], [1, 2, 5]].map((digits) => powers.flatMap((power) => digits.map((digit) => digit * power)));
    return tried.map((places) => places.filter((place) => place >= low && place <= high)).find(({ length }) => length > 1);
  };

  const rounded = (low, high) => {
    const rough = (high - low) / 4;
    const size = 10 ** Math.floor(Math.log10(rough));
    const apart = size * [1, 2, 2.5, 5, 10].find((digit) => digit * size >= rough * 0.999);
    const places = Array.from({ length: 6 }, (_, k) => Number(((Math.ceil(low / apart) + k) * apart).toPrecision(12)));
    return places.filter((place) => place <= high);
  };

  const scale = ([low, high], [from, to], logarithmic = false) => {
    const on = logarithmic ? Math.log10 : Number;
    const share = (to - from) / (on(high) - on(low));
    return {
      at: (value) => Math.min(Math.max(from + (on(value) - on(low)) * share, Math.min(from, to)), Math.max(from, to)),
      back: (place) => low + (place - from) / share,
      fits: (value) => value != null && (!logarithmic || value > 0),
      ticks: (logarithmic && decades(low, high)) || rounded(low, high),
    };
  };

  const limits = (values, logarithmic) => {
    if (!values.length) return logarithmic ? [0.1, 1] : [0, 1];
    const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    const factor = Math.max(1.08, (high / low) ** 0.04);
    if (logarithmic) return [Math.max(low / factor, 1e-300), Math.min(high * factor, 1e300)];
    const room = 0.04 * (high - low) || 0.1 * Math.abs(high) || 0.5;
    return [low - room, high + room];
  };

  const nearest = (places, value) =>
    places.reduce((best, place, k) => (Math.abs(place - value) < Math.abs(places[best] - value) ? k : best), 0);

  // --- a panel -------------------------------------------------------------------------------------------------------
  const panelOf = (chart, { title, lines, y: whole, range }) => {
    const picture = make("svg", { "aria-hidden": "true" });
    const role = { role: "slider", tabindex: 0, "aria-label": `${title}, by ${chart.x}` };
    const box = make("div", { class: "plot", ...role }, picture);
    const readout = make("p", { class: "readout" });
    const cursor = make("g");
    let [shown, x, y, at, chosen, floor] = [[], null, null, null, null, 0];

    const path = (line, values) => {
      let [text, pen] = ["", "M"];
      chart.xs[line.x].forEach((place, k) => {
        if (!y.fits(values[k]) || !inside(place)) return void (pen = "M");
        text += `${pen}${x.at(place).toFixed(1)} ${y.at(values[k]).toFixed(1)}`;
        pen = "L";
      });
      return text;
    };

    const band = (line) => {
      const there = chart.xs[line.x].map((_, k) => k).filter((k) => line.low[k] != null && y.fits(line.high[k]));
      const height = (value) => (y.fits(value) ? y.at(value) : floor);
      const corner = (values) => (k) => `${x.at(chart.xs[line.x][k]).toFixed(1)} ${height(values[k]).toFixed(1)}`;
      const corners = [...there.map(corner(line.high)), ...there.reverse().map(corner(line.low))];
      return corners.length ? `M${corners.join("L")}z` : "";
    };

    const curve = (line) => {
      const { color, dash } = chart.regimes[line.regime];
      const stroked = (name, values, dashes) =>
        make("path", { class: name, d: path(line, values), stroke: color, "stroke-dasharray": dashes.join(" ") });
      const bands = line.low ? [make("path", { class: "band", d: band(line), style: `fill: ${color}` })] : [];
      const seeds = (line.values ?? []).map((values) => stroked("seed", values, []));
      return [...bands, ...seeds, stroked(line.diverged === undefined ? "mean" : "seed", line.mean, dash)];
    };

    const draw = () => {
      const width = Math.max(box.clientWidth, 200);
      const height = Math.round(Math.min(380, Math.max(190, width * 0.62)));
      floor = height - EDGE.bottom;
      const present = lines.filter((line) => line.step === undefined || line.step === chart.step);
      shown = present.filter((line) => !chart.hidden.has(line.regime));
      const drawn = present.flatMap((line) => [line.mean, ...(line.values ?? [])]);
      const values = drawn.flat().filter((value) => value != null);
      const positive = values.filter((value) => value > 0);
      const logarithmic = chart.log && !(whole && chart.first) && positive.length > 0 && values.every((value) => value >= 0);
      const along = present.flatMap((line) => chart.xs[line.x]);
      x = scale(range ?? [Math.min(...along, 0), Math.max(...along, 1)], [EDGE.left, width - EDGE.right]);
      y = scale(logarithmic ? limits(positive, true) : (whole ?? limits(values)), [floor, EDGE.top], logarithmic);
      picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
      picture.replaceChildren(
        make("path", { class: "axis", d: `M${EDGE.left} ${EDGE.top}V${floor}H${width - EDGE.right}` }),
        ...x.ticks.map((tick) => make("text", { x: x.at(tick), y: floor + 16, "text-anchor": "middle" }, said(tick))),
        make("text", { x: (width + EDGE.left - EDGE.right) / 2, y: height - 4, "text-anchor": "middle" }, chart.x),
        ...y.ticks.flatMap((tick) => [
          make("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y.at(tick), y2: y.at(tick) }),
          make("text", { x: EDGE.left - 6, y: y.at(tick) + 4, "text-anchor": "end" }, said(tick)),
        ]),
        ...shown.flatMap(curve),
        cursor,
      );
      if (!shown.includes(chosen?.line)) chosen = null;
      const [first, last] = [places()[0] ?? 0, places().at(-1) ?? 0];
      set(box, { "aria-valuemin": first, "aria-valuemax": last, "aria-valuenow": at ?? last });
      point();
    };

    // --- what is under the pointer -----------------------------------------------------------------------------------
    const candidates = () =>
      shown.flatMap((line) => {
        const k = nearest(chart.xs[line.x], at);
        const own = line.values ?? [line.mean];
        return own.map((values, seed) => ({ line, seed, values, value: values[k] })).filter(({ value }) => y.fits(value));
      });

    const named = ({ regime, diverged }) =>
      chart.regimes[regime].label + (diverged === undefined ? "" : `, diverged at step ${said(diverged)}`);

    const rows = () =>
      shown.map((line) => {
        const k = nearest(chart.xs[line.x], at);
        const interval = line.low && line.low[k] != null ? ` [${said(line.low[k])}, ${said(line.high[k])}]` : "";
        const of = line.seeds.length > 1 ? `, mean of ${line.seeds.length} seeds` : `, seed ${line.seeds[0]}`;
        return { color: chart.regimes[line.regime].color, text: `${named(line)}: ${said(line.mean[k])}${interval}${of}` };
      });

    const point = () => {
      cursor.replaceChildren();
      if (at === null || !shown.length) return void readout.replaceChildren();
      const found = rows();
      const head = `${chart.x} ${said(at)}`;
      const node = (text, color) => make("span", {}, ...(color ? [swatch(color)] : []), text);
      readout.replaceChildren(node(head), ...found.map(({ text, color }) => node(text, color)));
      cursor.append(make("line", { class: "here", x1: x.at(at), x2: x.at(at), y1: EDGE.top, y2: floor }));
      let under = "";
      const pick = chosen && candidates().find(({ line, seed }) => line === chosen.line && seed === chosen.seed);
      if (pick) {
        const { color } = chart.regimes[pick.line.regime];
        under = `seed ${pick.line.seeds[pick.seed]} of ${named(pick.line)}: ${said(pick.value)}`;
        cursor.append(make("path", { class: "chosen", d: path(pick.line, pick.values), stroke: color }));
        cursor.append(make("circle", { cx: x.at(at), cy: y.at(pick.value), r: 4, fill: color }));
        if (pick.line.seeds.length > 1) readout.append(node(`Here: ${under}`, color));
      }
      const told = [head, under, ...found.map(({ text }) => text)].filter(Boolean).join("; ");
      set(box, { "aria-valuenow": at, "aria-valuetext": told });
    };

    const inside = (place) => !range || (place >= range[0] && place <= range[1]);
    const places = () =>
      [...new Set(shown.flatMap((line) => chart.xs[line.x]))].filter(inside).sort((one, other) => one - other);

    const pointed = (event) => {
      const all = places();
      if (!all.length) return;
      const frame = picture.getBoundingClientRect();
      at = all[nearest(all, x.back(event.clientX - frame.left))];
      const far = ({ value }) => Math.abs(y.at(value) - (event.clientY - frame.top));
      chosen = candidates().sort((one, other) => far(one) - far(other))[0] ?? null;
      point();
    };

    const pressed = (event) => {
      const moves = { ArrowRight: 1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };
      const all = places();
      if (!all.length) return;
      if (event.key in moves) {
        const now = at === null ? all.length - 1 : nearest(all, at);
        at = all[Math.min(Math.max(now + moves[event.key], 0), all.length - 1)];
      } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
        at ??= all.at(-1);
        const order = candidates().sort((one, other) => one.value - other.value);
        const now = order.findIndex(({ line, seed }) => line === chosen?.line && seed === chosen?.seed);
        chosen = order[(now + (event.key === "ArrowUp" ? 1 : order.length - (now < 0 ? 0 : 1))) % order.length] ?? null;
      } else return;
      event.preventDefault();
      point();
    };

    const go = (place) => {
      at = place;
      point();
    };

    for (const name of ["pointermove", "pointerdown"]) box.addEventListener(name, pointed);
    box.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && document.activeElement !== box) go(null);
    });
    box.addEventListener("blur", () => go(null));
    box.addEventListener("focus", () => go(at ?? places().at(-1) ?? null));
    box.addEventListener("keydown", pressed);
    return { node: make("div", { class: "panel" }, make("p", { class: "title" }, title), box, readout), draw };
  };

  // --- a chart -------------------------------------------------------------------------------------------------------
  const chartOf = (data) => {
    const chart = { ...data, first: data.log, hidden: new Set(), step: (data.steps ?? [0]).length - 1 };
    const panels = data.panels.map((panel) => panelOf(chart, panel));
    const redraw = () => panels.forEach(({ draw }) => draw());
    const tools = make("div", { class: "tools", role: "group", "aria-label": "What is shown" });
    data.regimes.forEach(({ label, color }, number) => {
      const button = make("button", { type: "button", "aria-pressed": "true" }, swatch(color), label);
      button.addEventListener("click", () => {
        if (!chart.hidden.delete(number)) chart.hidden.add(number);
        set(button, { "aria-pressed": !chart.hidden.has(number) });
        redraw();
      });
      tools.append(button);
    });
    const log = make("input", { type: "checkbox" });
    log.checked = data.log;
    log.addEventListener("change", () => {
      chart.log = log.checked;
      redraw();
    });
    tools.append(make("label", {}, log, " logarithmic axis"));
    if (data.steps) {
      const slider = make("input", { type: "range", min: 0, max: data.steps.length - 1, value: chart.step });
      const now = make("output");
      const tell = () => {
        now.textContent = said(data.steps[chart.step]);
        set(slider, { "aria-valuetext": `step ${now.textContent}` });
      };
      slider.addEventListener("input", () => {
        chart.step = Number(slider.value);
        tell();
        redraw();
      });
      tools.append(make("label", { class: "steps" }, "step ", slider, now));
      tell();
    }
    const how = "Point at a curve, or choose a panel with Tab: ← → go along, ↑ ↓ from seed to seed.";
    const note = make("p", { class: "note" }, [data.note, data.caption, how].filter(Boolean).join(" "));
    const grid = make("div", { class: "panels" }, ...panels.map(({ node }) => node));
    return { node: make("div", { class: "chart" }, tools, grid, note), redraw };
  };

  const charts = [];
  for (const source of document.querySelectorAll("script[data-chart]")) {
    const figure = source.closest("figure");
    const card = figure.querySelector(".card");
    const what = "Explore the numbers";
    const name = { "aria-label": `${what}: ${figure.querySelector("figcaption").textContent}` };
    const button = make("button", { type: "button", class: "explore", "aria-pressed": "false", ...name }, what);
    let chart = null;
    const toggle = () => {
      card.hidden = !card.hidden;
      set(button, { "aria-pressed": card.hidden });
      if (!chart) {
        charts.push((chart = chartOf(JSON.parse(source.textContent))));
        card.after(chart.node);
      }
      chart.node.hidden = !card.hidden;
      chart.redraw();
    };
    button.addEventListener("click", toggle);
    card.before(button);
    if (source.dataset.chart === "open") toggle();
  }
  addEventListener("resize", () => charts.forEach(({ redraw }) => redraw()));
})();
