// Draws the plots of `session`, and ties their cursor and the timeline's to the film.
const color = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const film = document.querySelector("video"), lanes = document.querySelector(".lanes"), now = document.getElementById("now");
const marks = [...document.querySelectorAll(".lane i")];
const plots = [];

// Frame k of the film was taken at session.frames[k] s.
const times = session.frames, last = times.length - 1;
const timeOfFilm = () => times[Math.min(last, Math.floor(film.currentTime * session.fps))];
function seek(time) {
  if (!film) return;
  const after = times.findIndex(each => each > time);
  film.currentTime = ((after < 0 ? last : Math.max(0, after - 1)) + 0.5) / session.fps;
}

function point(time, except) {
  if (lanes) {
    lanes.querySelector("b").style.left = `${100 * Math.min(1, time / session.duration)}%`;
    const here = marks.filter(mark => +mark.dataset.begin <= time && time <= Math.max(+mark.dataset.end, +mark.dataset.begin + 0.1));
    const newest = Object.fromEntries(here.map(mark => [mark.className === "intervention" ? mark.title : mark.parentNode.dataset.lane, mark.title]));
    now.textContent = [`${time.toFixed(1)} s`, ...Object.values(newest)].join(" · ");
  }
  for (const plot of plots)
    if (plot !== except && plot.overTime) plot.setCursor({left: plot.valToPos(time, "x"), top: -10});
}

// Chunks overlap in time: each is a line of its own.
function drawChunks(plot, joint) {
  const {ctx} = plot, ratio = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
  ctx.clip();
  ctx.strokeStyle = color("blue");
  ctx.lineWidth = 0.8 * ratio;
  for (const chunk of session.chunks) {
    ctx.beginPath();
    chunk.actions[joint].forEach((value, step) =>
      ctx.lineTo(plot.valToPos(chunk.begin + step * chunk.step, "x", true), plot.valToPos(value, "y", true)));
    ctx.stroke();
  }
  ctx.restore();
}

function draw(place, section, chart) {
  const number = value => value == null ? "" : String(+value.toPrecision(3));
  const axis = {stroke: () => color("quiet"), grid: {stroke: () => color("line"), width: 1}, ticks: {stroke: () => color("line")}, font: "12px system-ui"};
  const plot = new uPlot({
    title: chart.title,
    width: place.clientWidth,
    height: 190,
    scales: {x: {time: false}, y: chart.range ? {range: (_, low, high) => [Math.min(low ?? Infinity, chart.range[0]), Math.max(high ?? -Infinity, chart.range[1])]} : {}},
    axes: [{...axis, size: 30}, {...axis, size: 50}],
    legend: {markers: {width: 2}},
    cursor: {y: false, sync: section.over_time ? {key: "session", setSeries: false} : undefined},
    series: [
      {label: section.over_time ? "s" : "step", value: (_, value) => number(value)},
      ...chart.lines.map(line => ({
        label: line.label, stroke: () => color(line.color), width: line.width, value: (_, value) => number(value),
        points: {show: line.points, size: 4}, spanGaps: false,
      })),
    ],
    hooks: {
      drawSeries: chart.joint == null ? [] : [(plot, series) => series === chart.lines.length && drawChunks(plot, chart.joint)],
      setCursor: [plot => section.over_time && plot.cursor.event && plot.over.matches(":hover") && point(plot.posToVal(plot.cursor.left, "x"), plot)],
    },
  }, [section.x, ...chart.lines.map(line => line.values)], place);
  plot.overTime = section.over_time;
  if (section.over_time) plot.over.addEventListener("click", () => seek(plot.posToVal(plot.cursor.left, "x")));
  plots.push(plot);
  new ResizeObserver(() => plot.setSize({width: place.clientWidth, height: 190})).observe(place);
}

for (const grid of document.querySelectorAll(".charts")) {
  const section = session.sections[grid.dataset.section];
  for (const chart of section.charts) draw(grid.appendChild(document.createElement("div")), section, chart);
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(plot => plot.redraw()));

if (lanes) {
  const timeAt = event => session.duration * (event.clientX - lanes.getBoundingClientRect().left) / lanes.clientWidth;
  lanes.addEventListener("mousemove", event => point(timeAt(event)));
  lanes.addEventListener("click", event => seek(timeAt(event)));
}
if (film) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) film.pause();
  let shown;
  const follow = () => {
    const time = film.readyState > 1 ? timeOfFilm() : shown;
    if (time !== shown && !document.querySelector(".u-over:hover, .lanes:hover")) point(shown = time);
    requestAnimationFrame(follow);
  };
  follow();
}
