// Preprocess.fit of jaxnets/preprocess.py: an image of any size becomes what the model sees, in uint8, by the arithmetic
// of Pillow's Resample.c (each pass rounded to 8 bits, the coefficients to 22).

const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(1 - Math.abs(x), 0) },
  bicubic: {
    support: 2,
    at: (x) => {
      const a = -0.5, d = Math.abs(x);
      if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
      return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
    },
  },
  lanczos: { support: 3, at: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

// As Python rounds: halves to even.
function roundEven(x) {
  const down = Math.floor(x);
  if (x - down !== 0.5) return Math.round(x);
  return down % 2 === 0 ? down : down + 1;
}

// Returns height and width that an image is resized to before the crop.
function resizedTo(p, height, width) {
  const rows = Math.floor(p.height / p.crop_fraction + 1e-6);
  const columns = Math.floor(p.width / p.crop_fraction + 1e-6);
  if (p.fitting === "squeeze") return [rows, columns];
  if (p.fitting === "pad") {
    const ratio = Math.max(height / rows, width / columns);
    return [Math.max(roundEven(height / ratio), 1), Math.max(roundEven(width / ratio), 1)];
  }
  const rounded = rows === columns ? Math.floor : roundEven;
  if (height * columns <= width * rows) return [rows, rounded((rows * width) / height)];
  return [rounded((columns * height) / width), columns];
}

// Returns, for resized pixels `start` to `start + count` of a side, the first source pixel and the weights of each.
function weightsOf(filter, length, resized, start, count) {
  const scale = length / resized, wider = Math.max(scale, 1), support = filter.support * wider;
  const found = [];
  for (let i = start; i < start + count; i++) {
    const centre = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), length);
    const weights = [];
    for (let x = first; x < last; x++) weights.push(filter.at((x - centre + 0.5) / wider));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    found.push({ first, weights: weights.map((weight) => Math.round((weight / sum) * 4194304)) });
  }
  return found;
}

// Returns the source pixel of each resized one, step by step as Pillow does, so that ties fall as there.
function nearestOf(length, resized) {
  const found = [], step = length / resized;
  for (let at = step * 0.5; found.length < resized; at += step) found.push(Math.trunc(at));
  return found;
}

function to8bits(sum) {
  return Math.min(Math.max(Math.floor((sum + 2097152) / 4194304), 0), 255);
}

// Returns `crop` [rows, columns] from [top, left] on of an image {data, height, width, channels} resized to `resized`.
function resizeAndCrop(image, interpolation, resized, crop, top, left) {
  const { data, height, width, channels: c } = image, [rows, columns] = crop;
  const out = new Uint8Array(rows * columns * c);
  if (interpolation === "nearest") {
    const lines = nearestOf(height, resized[0]), places = nearestOf(width, resized[1]);
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const source = (lines[y + top] * width + places[x + left]) * c;
        for (let k = 0; k < c; k++) out[(y * columns + x) * c + k] = data[source + k];
      }
    }
    return out;
  }
  const across = weightsOf(FILTERS[interpolation], width, resized[1], left, columns);
  const down = weightsOf(FILTERS[interpolation], height, resized[0], top, rows);
  const begin = down[0].first, end = Math.max(...down.map((d) => d.first + d.weights.length));
  const between = new Uint8Array((end - begin) * columns * c);
  for (let y = begin; y < end; y++) {
    for (let x = 0; x < columns; x++) {
      const { first, weights } = across[x];
      for (let k = 0; k < c; k++) {
        let sum = 0, source = (y * width + first) * c + k;
        for (let i = 0; i < weights.length; i++, source += c) sum += weights[i] * data[source];
        between[((y - begin) * columns + x) * c + k] = to8bits(sum);
      }
    }
  }
  const step = columns * c;
  for (let y = 0; y < rows; y++) {
    const { first, weights } = down[y];
    for (let x = 0; x < step; x++) {
      let sum = 0, source = (first - begin) * step + x;
      for (let i = 0; i < weights.length; i++, source += step) sum += weights[i] * between[source];
      out[y * step + x] = to8bits(sum);
    }
  }
  return out;
}

// Returns RGBA pixels as grey (1) or RGB (3): alpha lies over white (Pillow's AlphaComposite.c), colours become luma.
function withChannels(rgba, channels) {
  const count = rgba.length / 4, out = new Uint8Array(count * channels), rgb = [0, 0, 0];
  for (let i = 0; i < count; i++) {
    const alpha = rgba[4 * i + 3], share = Math.floor((alpha * 255 * 255 * 128) / (255 * 255)), rest = 255 * 128 - share;
    for (let k = 0; k < 3; k++) {
      const value = rgba[4 * i + k] * share + 255 * rest + 16384;
      rgb[k] = alpha === 255 ? rgba[4 * i + k] : (((value >> 8) + value) >> 8) >> 7;
    }
    if (channels === 1) out[i] = (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 32768) >> 16;
    else out.set(rgb, 3 * i);
  }
  return out;
}

// Returns what a model with the preprocessing `p` sees of RGBA pixels [height, width, 4]: uint8 [p.height, p.width, c].
function fit(rgba, height, width, p) {
  const c = p.channels, image = { data: withChannels(rgba, c), height, width, channels: c };
  const resized = resizedTo(p, height, width);
  const same = height === p.height && width === p.width;
  if (same && p.crop_fraction === 1 && resized[0] === height && resized[1] === width) return image.data;
  const rows = Math.min(resized[0], p.height), columns = Math.min(resized[1], p.width);
  const top = roundEven((resized[0] - rows) / 2), left = roundEven((resized[1] - columns) / 2);
  const cut = resizeAndCrop(image, p.interpolation, resized, [rows, columns], top, left);
  if (rows === p.height && columns === p.width) return cut;
  const padded = new Uint8Array(p.height * p.width * c);
  const fill = p.mean.map((mean) => Math.min(Math.max(roundEven(255 * mean), 0), 255));
  for (let i = 0; i < padded.length; i++) padded[i] = fill[i % c];
  const above = Math.floor((p.height - rows) / 2), before = Math.floor((p.width - columns) / 2);
  for (let y = 0; y < rows; y++) {
    padded.set(cut.subarray(y * columns * c, (y + 1) * columns * c), ((above + y) * p.width + before) * c);
  }
  return padded;
}
