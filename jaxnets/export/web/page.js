// The page: images that are chosen, dropped, pasted or seen by the camera go through the model, one after the other.

const TOP = 5, SHOWN = 100;
const element = (id) => document.getElementById(id);
const card = JSON.parse(element("card").textContent);
const status = (text) => (element("status").textContent = text);

// Returns what a script element holds, in Base64 and gzipped; the text is let go.
async function embedded(id) {
  const found = element(id), bytes = await fetch("data:application/octet-stream;base64," + found.textContent.trim());
  found.remove();
  return new Response(bytes.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

let ort, session;

async function open() {
  const code = new Blob([await embedded("runtime")], { type: "text/javascript" });
  ort = await import(URL.createObjectURL(code));
  ort.env.wasm.wasmBinary = await embedded("wasm");
  ort.env.wasm.numThreads = 1; // more need headers that only a server can send
  session = await ort.InferenceSession.create(await embedded("model"), { executionProviders: ["wasm"] });
}

// Returns the answer to RGBA pixels (ImageData), as answer.js says it.
async function classify({ data, height, width }) {
  const p = card.preprocess, image = fit(data, height, width, p);
  const tensor = new ort.Tensor("uint8", image, [1, p.height, p.width, p.channels]);
  const { logits, ...others } = await session.run({ [session.inputNames[0]]: tensor });
  const scores = Object.fromEntries(Object.entries(others).map(([name, found]) => [name, found.data[0]]));
  return answerOf(card, logits.data, scores);
}

// Returns the pixels of what can be drawn. Colours are taken as the file has them, as Python does.
function pixelsOf(source, height, width) {
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  return context.getImageData(0, 0, width, height);
}

function show(article, { labels, reason, ranked }, name, pixels, milliseconds) {
  const canvas = document.createElement("canvas");
  [canvas.height, canvas.width] = [pixels.height, pixels.width];
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const said = document.createElement("div"), title = document.createElement("h2");
  said.className = "said";
  title.textContent = labels.length ? labels.join(", ") : "none of these";
  title.className = labels.length ? "" : "none";
  said.append(title, line("p", "dim", `${name ? name + " · " : ""}${milliseconds.toFixed(0)} ms${reason ? " · " + reason : ""}`));
  for (const { label, probability } of ranked.slice(0, TOP)) {
    const row = line("div", "row", ""), bar = line("div", "bar", "");
    bar.style.width = `${100 * probability}%`;
    row.append(line("span", "", label), line("b", "", `${(100 * probability).toFixed(1)} %`), bar);
    said.append(row);
  }
  article.dataset.labels = JSON.stringify(labels);
  article.dataset.first = ranked[0].label;
  article.dataset.probability = ranked[0].probability;
  article.dataset.name = name;
  article.replaceChildren(canvas, said);
}

function line(kind, style, text) {
  const made = document.createElement(kind);
  [made.className, made.textContent] = [style, text];
  return made;
}

async function answer(files) {
  for (const file of files) {
    const article = document.createElement("article");
    element("answers").prepend(article);
    while (element("answers").children.length > SHOWN) element("answers").lastChild.remove();
    try {
      status(`Looking at ${file.name} …`);
      const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
      const pixels = pixelsOf(bitmap, bitmap.height, bitmap.width), began = performance.now();
      show(article, await classify(pixels), file.name, pixels, performance.now() - began);
    } catch (error) {
      article.dataset.error = error.message;
      article.replaceChildren(line("div", "said", `${file.name} cannot be read as an image (${error.message})`));
    }
  }
  status("Choose images, drop or paste them here, or use the camera.");
}

let stream = null;

async function camera() {
  const button = element("camera"), live = element("live");
  if (stream) {
    stream.getTracks().forEach((track) => track.stop());
    stream = null;
    live.hidden = true;
    button.textContent = "Use the camera";
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    status(`The camera cannot be used (${error.message}): allow it for this page, or choose images.`);
    return;
  }
  const video = document.createElement("video"), article = document.createElement("article");
  [video.srcObject, video.muted, video.playsInline] = [stream, true, true];
  await video.play();
  button.textContent = "Stop the camera";
  live.replaceChildren(article);
  live.hidden = false;
  while (stream) {
    const pixels = pixelsOf(video, video.videoHeight, video.videoWidth), began = performance.now();
    show(article, await classify(pixels), "", pixels, performance.now() - began);
    await new Promise(requestAnimationFrame);
  }
}

// One call after the other: the model looks at one image at a time.
let queue = Promise.resolve();
function later(files) {
  const given = [...files]; // at once: the browser empties its list
  queue = queue.then(() => answer(given));
}

try {
  await open();
  element("files").disabled = element("camera").disabled = false;
  status("Choose images, drop or paste them here, or use the camera.");
  element("files").addEventListener("change", (event) => {
    later(event.target.files);
    event.target.value = "";
  });
  element("camera").addEventListener("click", camera);
  document.addEventListener("paste", (event) => later(event.clipboardData.files));
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      element("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") later(event.dataTransfer.files);
    });
  }
} catch (error) {
  status(`The model cannot be opened here (${error.message}): a browser of 2023 or later is needed.`);
}
