// Shows one gene of one slide: unpacks its words, paints the maps, and tells the numbers beside them.
// The callback of every widget of train/report/viewer/panels.py; `obj` is the one that changed.

const HALF = Float32Array.from({length: 65536}, (_, bits) => {
  const sign = bits >> 15 ? -1 : 1, exponent = bits >> 10 & 31, fraction = bits & 1023
  if (exponent === 31) return fraction ? NaN : sign * Infinity
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction)
})

// A word is in the page, or in a script of the folder beside it, which works without a server.
const word = async (name, facts) => {
  const inside = document.getElementById(name)
  if (inside) return inside.textContent
  window.magnetWords ??= {}
  const key = `${facts.page}/${name}`
  if (!(key in window.magnetWords)) {
    await new Promise((done) => {
      const script = document.createElement("script")
      script.src = `${encodeURIComponent(facts.folder)}/${name}.js`
      script.onload = script.onerror = done
      document.head.append(script)
    })
  }
  const text = window.magnetWords[key]
  delete window.magnetWords[key]
  return text
}

const unpacked = async (text) => {
  const packed = new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))])
  const stream = packed.stream().pipeThrough(new DecompressionStream("deflate"))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

const halves = (bytes) => {
  const size = bytes.length / 2
  return Float32Array.from({length: size}, (_, i) => HALF[bytes[i] | bytes[size + i] << 8])
}

const rowsOf = (bytes) => {
  const size = bytes.length / 4, rows = new Int32Array(size)
  for (let i = 0, row = 0; i < size; i++) {
    row += bytes[i] | bytes[size + i] << 8 | bytes[2 * size + i] << 16 | bytes[3 * size + i] << 24
    rows[i] = row
  }
  return rows
}

const round = (value) => value == null || !Number.isFinite(value) ? "–" : value.toFixed(3)

const percentile = (values, share) => {
  const known = values.filter(Number.isFinite).sort()
  return known.length ? known[Math.floor(share * (known.length - 1))] : 0
}

const escaped = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`)

const legendOf = (colours, low, high) => {
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => `<span>${(low + share * (high - low)).toFixed(2)}</span>`)
  return `<div style="background:${colours};height:12px;border-radius:2px"></div>
    <div style="display:flex;justify-content:space-between">${ticks.join("")}</div>`
}

// Places, barcodes and picture of the slide that is shown; read once.
const place = async (facts) => {
  const [rows, barcodes] = await Promise.all(["rows", "barcodes"].map(async (kind) =>
    unpacked(await word(`${facts.word}-${kind}`, facts))))
  const names = new TextDecoder().decode(barcodes).split("\n"), shown = rowsOf(rows)
  return {rows: shown, names, barcode: Array.from(shown, (row) => row < 0 ? "" : names[row])}
}

const fit = (facts, {x, y, aspect}) => {
  const [width, height] = [facts.x[1] - facts.x[0], facts.y[1] - facts.y[0]]
  const [across, down] = [Math.max(width, height * aspect) / 2, Math.max(height, width / aspect) / 2]
  const [middle, centre] = [(facts.x[0] + facts.x[1]) / 2, (facts.y[0] + facts.y[1]) / 2]
  const about = (start, end) => ({start, end, reset_start: start, reset_end: end})
  x.setv(about(middle - across, middle + across))
  y.setv(about(centre + down, centre - down))
}

// The table of genes: its headings sort, its rows open maps, and arrow keys move from row to row.
const HEADINGS = {gene: "gene", pcc: "PCC", mse: "MSE", mean: "mean"}
let sorted = {by: "pcc", falls: true}

const list = (args, genes, system) => {
  const {filter, gene} = args, box = document.getElementById("genes"), {by, falls} = sorted
  const of = {gene: (i) => genes.name[i].toLowerCase(), pcc: (i) => genes.pcc[i][system], mse: (i) => genes.mse[i][system],
    mean: (i) => genes.mean[i]}
  const compare = (a, b) => a == null || b == null ? (a == null) - (b == null) : (a < b ? -1 : a > b) * (falls ? -1 : 1)
  const text = filter.value_input.trim().toLowerCase()
  const kept = genes.name.map((_, i) => i).filter((i) => `${genes.name[i]} ${genes.id[i]}`.toLowerCase().includes(text))
    .sort((i, j) => compare(of[by](i), of[by](j)) || i - j)
  const heads = Object.entries(HEADINGS).map(([name, title]) => `<th scope="col" class="${name === "gene" ? "" : "number"}"
    aria-sort="${name !== by ? "none" : falls ? "descending" : "ascending"}"><button data-sort="${name}">${title}</button></th>`)
  const rows = kept.map((i) => `<tr data-at="${i}"><td><button tabindex="-1">${escaped(genes.name[i])}</button></td>
    ${["pcc", "mse", "mean"].map((name) => `<td class="number">${round(of[name](i))}</td>`).join("")}</tr>`)
  box.innerHTML = `<table><thead><tr>${heads.join("")}</tr></thead><tbody>${rows.join("")}</tbody></table>`
  box.onclick = ({target}) => {
    const {sort} = target.closest("button")?.dataset ?? {}, {at} = target.closest("tr").dataset
    if (at !== undefined) gene.value = genes.name[at]
    if (!sort) return
    sorted = {by: sort, falls: sort === by ? !falls : sort === "pcc" || sort === "mean"}
    list(args, genes, system)
    box.querySelector(`[data-sort=${sort}]`).focus()
  }
  box.onkeydown = (event) => {
    const row = event.target.closest("tbody tr")
    const next = {ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling}[event.key]
    if (!next) return
    event.preventDefault()
    next.querySelector("button").focus()
  }
  mark(genes, gene.value)
}

// Sets off the row of the gene that is shown, which the Tab key comes to, and brings it to sight.
const mark = (genes, name) => {
  const box = document.getElementById("genes"), at = String(genes.name.indexOf(name))
  const rows = [...box.querySelectorAll("tbody tr")], shown = rows.find((row) => row.dataset.at === at)
  for (const row of rows) {
    row.setAttribute("aria-current", row === shown)
    row.querySelector("button").tabIndex = row === (shown ?? rows[0]) ? 0 : -1
  }
  const below = shown ? shown.offsetTop - box.scrollTop : 0
  if (shown && (below < 40 || below > box.clientHeight - 40)) box.scrollTop = shown.offsetTop - box.clientHeight / 2
}

let all, current, latest = 0

export default async (args, obj) => {
  all ??= JSON.parse(document.getElementById("maps").textContent)
  const {slide, system, gene, scale, filter, bins, outline, picture, points, panels, status} = args
  const facts = all[Number(slide.value)], genes = facts.genes
  if (current?.facts !== facts) {
    current = {facts}
    latest++
    system.options = facts.systems
    if (!facts.systems.includes(system.value)) system.value = facts.ours
    gene.completions = genes.name
    if (!genes.name.includes(gene.value)) gene.value = genes.name[facts.best]
    fit(facts, args)
  }
  const [which, at] = [facts.systems.indexOf(system.value), genes.name.indexOf(gene.value)]
  if (obj !== gene && obj !== scale) list(args, genes, which)
  if (obj === filter || which < 0 || at < 0) return
  const turn = ++latest, shown = current
  shown.place ??= place(facts)
  const [{rows, names, barcode}, coded, url] = await Promise.all([
    shown.place, word(`${facts.word}-gene-${at}`, facts), facts.picture ? word(`${facts.word}-picture`, facts) : null])
  if (turn !== latest) return
  if (coded === undefined) {
    status.text = `<p role="alert"><b>${escaped(gene.value)} is not in this page.</b> Its values lie in the folder
      '${escaped(facts.folder)}', which belongs beside the page and is not there, or is of another page.</p>`
    return
  }
  const values = halves(await unpacked(coded))
  if (turn !== latest) return

  const count = names.length
  const part = (index) => values.subarray(index * count, (index + 1) * count)
  const truth = facts.truth ? part(0) : new Float32Array(count).fill(NaN)
  const prediction = part(which + (facts.truth ? 1 : 0))
  const deviation = facts.deviation && system.value === facts.ours ? part(values.length / count - 1) : null
  const difference = prediction.map((value, row) => value - truth[row])
  const [low, high] = [genes.low[at], genes.high[at]]
  const own = scale.value === "own"
  const range = {
    truth: [low, high],
    prediction: own ? [percentile(prediction, 0.01), percentile(prediction, 0.99)] : [low, high],
    difference: [low - high, high - low],
    deviation: [0, deviation ? percentile(deviation, 0.99) : 1],
  }
  const drawn = {truth, prediction, difference, deviation}
  const heading = {truth: "measured", prediction: system.value, difference: `${system.value} − measured`,
    deviation: "sd between the members"}
  const visible = {truth: facts.truth, prediction: true, difference: facts.truth, deviation: deviation !== null}

  const Grid = bins.data.truth[0].constructor
  const grid = (of) => [new Grid(Float32Array.from(rows, (row) => row < 0 || !of ? NaN : of[row]), facts.shape)]
  for (const [kind, {mapper, title, legend, colours}] of Object.entries(panels)) {
    document.getElementById(`map-${kind}`).hidden = !visible[kind]
    const [from, to] = range[kind]
    mapper.setv({low: from, high: Math.max(to, from + 1e-3)})
    title.text = `<b>${escaped(gene.value)}</b>, ${escaped(heading[kind])}`
    legend.text = legendOf(colours, from, Math.max(to, from + 1e-3))
  }
  const [height, width] = facts.shape
  bins.data = {
    x: [facts.left], y: [facts.top], w: [width * facts.step], h: [height * facts.step], barcode: [barcode],
    truth: grid(truth), prediction: grid(prediction), difference: grid(difference), deviation: grid(deviation),
  }
  if (shown.drawn !== true) {
    const [x0, y0, x1, y1] = facts.outline.map((cells, i) =>
      cells.map((cell) => (i % 2 ? facts.top : facts.left) + cell * facts.step))
    outline.data = {x0, y0, x1, y1}
    const [x, y, w, h, angle] = (facts.picture ?? []).map((value) => [value])
    picture.data = facts.picture ? {url: [url], x, y, w, h, angle} : {url: [], x: [], y: [], w: [], h: [], angle: []}
    shown.drawn = true
  }
  const step = Math.ceil(count / 4000)
  const kept = names.map((_, row) => row).filter((row) => row % step === 0 && Number.isFinite(truth[row]))
  document.getElementById("points").hidden = !kept.length
  if (kept.length) points.data = {truth: kept.map((row) => truth[row]), prediction: kept.map((row) => prediction[row]),
    barcode: kept.map((row) => names[row])}
  mark(genes, gene.value)
  const [pcc, mse] = [genes.pcc[at][which], genes.mse[at][which]]
  const compared = facts.truth ? `PCC ${round(pcc)}, MSE ${round(mse)}, mean ${round(genes.mean[at])}` : "not measured"
  const elsewhere = facts.truth || genes.elsewhere[at] === null ? ""
    : `; where this run was tested, the gene has a PCC of ${round(genes.elsewhere[at])} on average`
  const learnt = facts.learnt ? "; this slide was learnt from, so that they say little of others" : ""
  status.text = `<p role="status"><b>${escaped(gene.value)}</b> (${escaped(genes.id[at])}) on ${escaped(facts.title)},
    ${count.toLocaleString("en")} rows, predicted by ${escaped(system.value)}: ${compared}${elsewhere}${learnt}.</p>`
}
