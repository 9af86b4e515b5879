// Zooms and pans all maps: `by` is [zoom, right, down], both in shares of what is seen; null shows the whole again.
export default ({x, y, by}) => {
  if (by === null) {
    x.reset()
    y.reset()
    return
  }
  const [zoom, right, down] = by
  for (const [range, shift] of [[x, right], [y, down]]) {
    const middle = (range.start + range.end) / 2 + shift * Math.abs(range.end - range.start)
    const half = (range.end - range.start) / 2 / zoom
    range.setv({start: middle - half, end: middle + half})
  }
}
