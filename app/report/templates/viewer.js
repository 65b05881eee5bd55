// The cases of a page: brainsprite cuts and blends the planes; this file loads the voxels, draws the planes
// with crosshair and sides, and holds window, keys, sorting and filters.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("case-data").textContent);
  const root = document.getElementById("viewer");
  const list = document.getElementById("case-list");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const planes = [...root.querySelectorAll("[data-plane]")];
  const sliders = [...root.querySelectorAll("[data-axis]")];
  const cards = [...document.querySelectorAll("[data-case]")];
  const imageSprite = document.getElementById("viewer-image");
  const mapSprite = document.getElementById("viewer-map");
  // Axes of the volume: 0 width, 1 height, 2 depth; of each plane [across, up, through].
  const AXES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] };
  const SIDES = { axial: ["L", "R"], coronal: ["L", "R"], sagittal: ["P", "A"] };
  let brain = null, current = null, view = null, overlay = null, at = [0, 0, 0], opened = 0;

  const readLevels = async (address) => {
    const picture = new Image();
    picture.src = address;
    await picture.decode();
    const canvas = document.createElement("canvas");
    canvas.width = picture.naturalWidth;
    canvas.height = picture.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const levels = new Uint8Array(canvas.width * canvas.height);
    for (let i = 0; i < levels.length; i++) levels[i] = pixels[4 * i];
    return { levels, width: canvas.width, height: canvas.height };
  };

  const paint = (canvas, sprite, colours) => {
    canvas.width = sprite.width;
    canvas.height = sprite.height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(sprite.width, sprite.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = colours[sprite.levels[i]];
    context.putImageData(image, 0, 0);
  };

  const toPixels = (bytes) => new Uint32Array(new Uint8Array(bytes).buffer);

  const windowColours = () => {
    const [black, white] = [Number(part("black").value), Number(part("white").value)];
    const bytes = [];
    for (let level = 0; level < 256; level++) {
      const value = view.low + (level / 255) * (view.high - view.low);
      const grey = 255 * Math.min(1, Math.max(0, (value - black) / Math.max(white - black, 1e-9)));
      bytes.push(grey, grey, grey, 255);
    }
    return toPixels(bytes.map(Math.round));
  };

  const overlayColours = () => {
    if (!overlay.mask) return toPixels(data.colours.flat());
    return toPixels(Array.from({ length: 256 }, (_, level) => [...data.mask, level > 127 ? 255 : 0]).flat());
  };

  const levelAt = (sprite, [x, y, z]) => {
    const [, height, depth] = view.size;
    const column = x % view.columns, row = Math.floor(x / view.columns);
    return sprite.levels[(row * depth + depth - 1 - z) * sprite.width + column * height + y];
  };

  const number = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3))));

  const mm = (voxel) => view.affine.slice(0, 3).map((row) => row[3] + voxel.reduce((sum, v, i) => sum + row[i] * v, 0));

  const describe = () => {
    const place = mm(at).map((value, i) => `${"xyz"[i]} ${value.toFixed(1)}`).join(", ");
    const level = levelAt(view.sprite, at);
    const bound = level === 255 ? "at least " : level === 0 ? "at most " : "";
    const value = number(view.low + (level / 255) * (view.high - view.low));
    let text = `${place} mm${view.world ? "" : " from the first voxel"}; value ${bound}${value}`;
    if (overlay) {
      const own = levelAt(overlay.sprite, at);
      text += overlay.mask ? `; ${own > 127 ? "inside" : "outside"} the mask` : `; ${overlay.name} ${(own / 255).toFixed(2)} of its maximum`;
    }
    return text;
  };

  const drawPlane = (canvas) => {
    const name = canvas.dataset.plane;
    const source = { sagittal: brain.planes.canvasX, coronal: brain.planes.canvasY, axial: brain.planes.canvasZ }[name];
    const [across, up, through] = AXES[name];
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.width = width;
    canvas.height = Math.max(1, Math.round((width * source.height) / source.width));
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(source, 0, 0, canvas.width, canvas.height);
    const x = ((at[across] + 0.5) / view.size[across]) * canvas.width;
    const y = (1 - (at[up] + 0.5) / view.size[up]) * canvas.height;
    if (part("crosshair").checked) {
      const gap = 7 * ratio;
      context.strokeStyle = "#4cc9f0";
      context.lineWidth = ratio;
      context.beginPath();
      for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, canvas.height]]) {
        if (x1 > x0 || y1 > y0) { context.moveTo(x0, y0); context.lineTo(x1, y1); }
      }
      context.stroke();
    }
    if (view.sides) {
      context.font = `${12 * ratio}px sans-serif`;
      context.textBaseline = "top";
      SIDES[name].forEach((side, i) => {
        context.textAlign = i ? "right" : "left";
        const place = i ? canvas.width - 4 * ratio : 4 * ratio;
        context.strokeStyle = "#000";
        context.lineWidth = 3 * ratio;
        context.strokeText(side, place, 4 * ratio);
        context.fillStyle = "#fff";
        context.fillText(side, place, 4 * ratio);
      });
    }
    canvas.setAttribute("aria-label", `${name} plane ${at[through] + 1} of ${view.size[through]} of ${current.subject}`);
  };

  const draw = () => {
    brain.numSlice = { X: at[0], Y: at[1], Z: at[2] };
    brain.drawAll();
    planes.forEach(drawPlane);
    sliders.forEach((slider) => { slider.value = at[slider.dataset.axis]; });
    part("position").textContent = describe();
  };

  const blend = () => {
    brain.overlay.opacity = overlay ? part("opacity").value / 100 : 0;
    brain.init();
    draw();
    drawBar();
  };

  const drawBar = () => {
    const bar = part("bar"), context = bar.getContext("2d");
    part("scale").hidden = !overlay || overlay.mask;
    context.globalAlpha = 1;
    context.fillStyle = "#000";
    context.fillRect(0, 0, 256, 8);
    context.fillStyle = "#fff";
    context.fillRect(0, 8, 256, 8);
    context.globalAlpha = part("opacity").value / 100;
    data.colours.forEach(([r, g, b, a], i) => {
      context.fillStyle = `rgba(${r}, ${g}, ${b}, ${a / 255})`;
      context.fillRect(i, 0, 1, 16);
    });
  };

  const setWindow = () => { paint(imageSprite, view.sprite, windowColours()); blend(); };

  const resetWindow = () => {
    const step = (view.high - view.low) / 255;
    for (const [name, value] of [["black", view.window[0]], ["white", view.window[1]]]) {
      Object.assign(part(name), { min: view.low, max: view.high, step });
      part(name).value = value;
    }
    setWindow();
  };

  const startBrain = () => {
    const [X, Y, Z] = view.size;
    const nbSlice = { X, Y, Z };
    if (!brain) {
      brain = brainsprite({ canvas: "viewer-engine", sprite: "viewer-image", nbSlice, showLR: false, nanValue: true, overlay: { sprite: "viewer-map", nbSlice, opacity: 0 } });
    }
    const layout = { nbSlice, nbCol: view.columns, nbRow: Math.ceil(X / view.columns) };
    Object.assign(brain, layout);
    Object.assign(brain.overlay, layout);
  };

  const choose = async (index, moves) => {
    const [first, second] = part("overlay").options[index].value.split(",").map(Number);
    const changed = view !== current.views[first];
    view = current.views[first];
    view.sprite = view.sprite || (await readLevels(view.image));
    overlay = second < 0 ? null : view.overlays[second];
    if (overlay) overlay.sprite = overlay.sprite || (await readLevels(overlay.image));
    const empty = { levels: new Uint8Array(view.sprite.levels.length), width: view.sprite.width, height: view.sprite.height };
    paint(mapSprite, overlay ? overlay.sprite : empty, overlay ? overlayColours() : new Uint32Array(256));
    if (changed || moves) {
      at = [...view.start];
      sliders.forEach((slider) => { slider.max = view.size[slider.dataset.axis] - 1; });
      paint(imageSprite, view.sprite, new Uint32Array(256));
      startBrain();
      resetWindow();
    } else blend();
  };

  const open = async (index) => {
    opened = index;
    current = data.cases[index];
    view = null;
    const options = current.views.flatMap((one, i) => [
      ...one.overlays.map((map, k) => [`${i},${k}`, current.views.length > 1 ? `${map.name} of ${one.name}` : map.name]),
      [`${i},-1`, current.views.length > 1 ? `none (${one.name})` : "none"],
    ]);
    part("overlay").replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    part("subject").textContent = current.subject;
    part("text").textContent = current.text;
    cards.forEach((card) => card.classList.toggle("opened", Number(card.dataset.case) === index));
    root.hidden = false;
    await choose(0, true);
    root.dataset.ready = String(index);
  };

  const move = (axis, by) => {
    at[axis] = Math.min(view.size[axis] - 1, Math.max(0, at[axis] + by));
    draw();
  };

  const shown = () => [...document.querySelectorAll("[data-case]:not([hidden])")].map((card) => Number(card.dataset.case));

  const openNext = (by) => {
    const known = shown();
    if (known.length) open(known[(known.indexOf(opened) + by + known.length) % known.length]);
  };

  const pointTo = (canvas, event) => {
    const box = canvas.getBoundingClientRect();
    const [across, up] = AXES[canvas.dataset.plane];
    const inside = (share, side) => Math.min(side - 1, Math.max(0, Math.floor(share * side)));
    at[across] = inside((event.clientX - box.left) / box.width, view.size[across]);
    at[up] = inside(1 - (event.clientY - box.top) / box.height, view.size[up]);
    draw();
  };

  const toggleOverlay = () => {
    const select = part("overlay"), off = [...select.options].findIndex((one) => one.value === `${current.views.indexOf(view)},-1`);
    if (overlay) select.dataset.last = select.selectedIndex;
    select.selectedIndex = overlay ? off : Number(select.dataset.last || 0);
    choose(select.selectedIndex, false);
  };

  const pressKey = (canvas, event) => {
    const [across, up, through] = AXES[canvas.dataset.plane];
    const actions = {
      ArrowLeft: () => move(across, -1), ArrowRight: () => move(across, 1),
      ArrowDown: () => move(up, -1), ArrowUp: () => move(up, 1),
      PageDown: () => move(through, -1), PageUp: () => move(through, 1),
      o: toggleOverlay, n: () => openNext(1), p: () => openNext(-1),
    };
    if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  };

  planes.forEach((canvas) => {
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); pointTo(canvas, event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) pointTo(canvas, event); });
    canvas.addEventListener("keydown", (event) => pressKey(canvas, event));
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas) return; // the page scrolls until a plane is chosen
      event.preventDefault();
      move(AXES[canvas.dataset.plane][2], event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
  });
  sliders.forEach((slider) => slider.addEventListener("input", () => { at[slider.dataset.axis] = Number(slider.value); draw(); }));
  part("overlay").addEventListener("change", (event) => choose(event.target.selectedIndex, false));
  part("opacity").addEventListener("input", blend);
  part("black").addEventListener("input", setWindow);
  part("white").addEventListener("input", setWindow);
  part("reset").addEventListener("click", resetWindow);
  part("crosshair").addEventListener("change", draw);
  part("previous").addEventListener("click", () => openNext(-1));
  part("next").addEventListener("click", () => openNext(1));
  window.addEventListener("resize", () => { if (brain) draw(); });

  cards.forEach((card) => {
    const button = card.querySelector("button");
    button.hidden = false;
    const show = () => open(Number(card.dataset.case)).then(() => { root.scrollIntoView({ block: "nearest" }); planes[0].focus({ preventScroll: true }); });
    button.addEventListener("click", show);
    card.querySelectorAll("img").forEach((picture) => picture.addEventListener("click", show));
  });

  const homes = cards.map((card) => [card, card.parentElement]);
  const arrange = () => {
    const key = list.querySelector("[data-sort]").value;
    const order = cards.slice();
    if (key) order.sort((a, b) => Number(b.dataset[key] ?? -Infinity) - Number(a.dataset[key] ?? -Infinity));
    order.forEach((card) => (key ? homes[0][1] : homes.find(([own]) => own === card)[1]).append(card));
    const facts = Object.fromEntries(data.cases.map((one, i) => [i, one.facts]));
    const wanted = [...list.querySelectorAll("[data-filter]")].filter((select) => select.value);
    cards.forEach((card) => { card.hidden = wanted.some((select) => facts[card.dataset.case][select.dataset.filter] !== select.value); });
    document.querySelectorAll(".case-group").forEach((group) => {
      group.hidden = ![...group.querySelectorAll("[data-case]")].some((card) => !card.hidden);
      group.querySelector("h3")?.toggleAttribute("hidden", Boolean(key));
    });
    list.querySelector("output").textContent = `${shown().length} of ${cards.length} cases`;
  };
  list.hidden = false;
  list.querySelectorAll("select").forEach((select) => select.addEventListener("change", arrange));
  arrange();
  open(0);
})();
