// Gates on the last site of the digits network, recomputed here: see softprune/sliders.py.
(function () {
  "use strict";
  const get = (id) => document.getElementById(id);
  const data = JSON.parse(get("softprune-data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const floats = (text) => new Float32Array(bytes(text));
  const J = data.channels, C = data.names.length, N = data.labels.length;
  const scale = floats(data.scale), table = floats(data.table);
  const weight = floats(data.weight), bias = floats(data.bias);
  const features = Float64Array.from(new Uint16Array(bytes(data.features)), (v, i) => v * scale[i % J]);
  const pictures = new Uint8Array(bytes(data.pictures));

  // mean over the class's images less the mean over all others' (the score `difference`)
  function scores(cls) {
    const total = data.counts.reduce((a, n, c) => a + (c === cls ? 0 : n), 0);
    return Array.from({ length: J }, (_, j) => {
      let rest = 0;
      for (let c = 0; c < C; c++) if (c !== cls) rest += (data.counts[c] * table[c * J + j]) / total;
      return table[cls * J + j] - rest;
    });
  }

  function gates(cls, channels, strength) {
    const s = scores(cls), g = new Float64Array(J).fill(1);
    const order = s.map((_, j) => j).sort((a, b) => s[b] - s[a] || a - b);
    for (const j of order.slice(0, channels)) g[j] = 1 - strength;
    return g;
  }

  function logits(g) {
    const z = new Float64Array(N * C);
    for (let n = 0; n < N; n++)
      for (let c = 0; c < C; c++) {
        let sum = bias[c];
        for (let j = 0; j < J; j++) sum += weight[c * J + j] * g[j] * features[n * J + j];
        z[n * C + c] = sum;
      }
    return z;
  }

  function largest(z, n, without) {
    let best = -1;
    for (let c = 0; c < C; c++)
      if (c !== without && (best < 0 || z[n * C + c] > z[n * C + best])) best = c;
    return best;
  }

  function probability(z, n, cls) {
    const top = z[n * C + largest(z, n, -1)];
    let sum = 0;
    for (let c = 0; c < C; c++) sum += Math.exp(z[n * C + c] - top);
    return Math.exp(z[n * C + cls] - top) / sum;
  }

  function perClass(guess) {
    const right = new Array(C).fill(0), all = new Array(C).fill(0);
    data.labels.forEach((y, n) => { all[y] += 1; if (guess[n] === y) right[y] += 1; });
    return right.map((r, c) => r / all[c]);
  }

  function others(guess, cls) {
    let right = 0, all = 0;
    data.labels.forEach((y, n) => { if (y !== cls) { all += 1; if (guess[n] === y) right += 1; } });
    return right / all;
  }

  const plain = logits(new Float64Array(J).fill(1));
  const index = data.labels.map((_, n) => n);
  const before = perClass(index.map((n) => largest(plain, n, -1)));
  const percent = (v) => (100 * v).toFixed(1) + " %";

  function compute(cls, channels, strength) {
    const g = gates(cls, channels, strength), z = logits(g);
    const guess = index.map((n) => largest(z, n, -1));
    const mine = index.filter((n) => data.labels[n] === cls);
    return {
      g, guess, mine, each: perClass(guess),
      forgotten: perClass(guess)[cls], retained: others(guess, cls),
      confidence: mine.reduce((a, n) => a + probability(z, n, cls), 0) / mine.length,
      masked: others(index.map((n) => largest(plain, n, cls)), cls),
    };
  }

  function bars(made, cls) {
    const rows = made.each.map((v, c) => {
      const y = 22 * c, colour = c === cls ? "#D55E00" : "#0072B2";
      return `<text x="62" y="${y + 15}" text-anchor="end">${data.names[c]}</text>` +
        `<rect x="70" y="${y + 3}" width="${(300 * v).toFixed(1)}" height="15" fill="${colour}"/>` +
        `<rect x="${(69 + 300 * before[c]).toFixed(1)}" y="${y}" width="2" height="21" fill="currentColor"/>` +
        `<text x="378" y="${y + 15}">${percent(v)}</text>`;
    });
    get("sp-bars").innerHTML = `<svg viewBox="0 0 440 ${22 * C}" width="100%" style="max-width:560px" ` +
      `font-size="13" fill="currentColor" aria-hidden="true">${rows.join("")}</svg>`;
    get("sp-bars").setAttribute("aria-label", "Accuracy by class: " +
      made.each.map((v, c) => `${data.names[c]} ${percent(v)}`).join(", "));
  }

  function lollipops(made) {
    const step = 440 / J;
    const sticks = Array.from(made.g, (g, j) => {
      const x = (step * (j + 0.5)).toFixed(1), y = (6 + 50 * (1 - g)).toFixed(1);
      return `<line x1="${x}" x2="${x}" y1="6" y2="${y}" stroke="#0072B2"/>` +
        `<circle cx="${x}" cy="${y}" r="2.5" fill="${g < 1 ? "#0072B2" : "#8A8A8A"}"/>`;
    });
    get("sp-gates").innerHTML = `<svg viewBox="0 0 440 62" width="100%" style="max-width:560px" ` +
      `aria-hidden="true">${sticks.join("")}</svg>`;
    const shut = Array.from(made.g).filter((g) => g < 1).length;
    get("sp-gates").setAttribute("aria-label", `${shut} of ${J} gates are below 1`);
  }

  function gallery(made, cls) {
    const side = data.side, size = side * side;
    get("sp-pictures").replaceChildren(...made.mine.slice(0, 24).map((n) => {
      const box = document.createElement("figure"), canvas = document.createElement("canvas");
      canvas.width = canvas.height = side;
      const pen = canvas.getContext("2d"), image = pen.createImageData(side, side);
      for (let i = 0; i < size; i++) {
        const shade = 255 - 17 * pictures[n * size + i];
        image.data.set([shade, shade, shade, 255], 4 * i);
      }
      pen.putImageData(image, 0, 0);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `a ${data.names[cls]}, taken for ${data.names[made.guess[n]]}`);
      const said = document.createElement("figcaption");
      said.textContent = data.names[made.guess[n]];
      if (made.guess[n] !== cls) said.className = "sp-wrong";
      box.append(canvas, said);
      return box;
    }));
  }

  function show() {
    const cls = Number(get("sp-class").value), channels = Number(get("sp-channels").value);
    const strength = Number(get("sp-strength").value), made = compute(cls, channels, strength);
    get("sp-channels-said").textContent = `${channels} of ${J} (${percent(channels / J)})`;
    get("sp-strength-said").textContent = `${strength.toFixed(2)} (gates at ${(1 - strength).toFixed(2)})`;
    get("sp-channels").setAttribute("aria-valuetext", get("sp-channels-said").textContent);
    get("sp-strength").setAttribute("aria-valuetext", get("sp-strength-said").textContent);
    get("sp-said").textContent = `${data.names[cls]}: ${percent(made.forgotten)} of its images right, at a mean ` +
      `confidence of ${made.confidence.toFixed(3)}. The others: ${percent(made.retained)} ` +
      `(under a head mask ${percent(made.masked)}).`;
    for (const name of ["forgotten", "retained", "confidence", "masked"])
      get("sp-said").dataset[name] = made[name];
    bars(made, cls);
    lollipops(made);
    gallery(made, cls);
  }

  // sliders.html#class=3&channels=13&strength=1 opens with that setting
  const asked = new URLSearchParams(location.hash.slice(1));
  data.names.forEach((name, c) => get("sp-class").add(new Option(name, c)));
  get("sp-class").value = asked.get("class") || "3";
  get("sp-channels").max = J;
  for (const name of ["channels", "strength"])
    if (asked.has(name)) get(`sp-${name}`).value = asked.get(name);
  get("softprune-sliders").addEventListener("input", show);
  get("softprune-sliders").addEventListener("submit", (event) => event.preventDefault());
  show();
})();
