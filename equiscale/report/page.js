// Draws the page's plots, keeps log ticks readable at every zoom and width, and lets the legend show and hide.
"use strict";
(() => {
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = {
    displaylogo: false, displayModeBar: false, doubleClick: "reset",
  };
  const power = (m, e) => (m === 1 ? "" : m + "×") + "10<sup>" + String(e).replace("-", "−") + "</sup>";
  const range = (count, step) => Array.from({ length: count }, (_, i) => Number((1 + i * step).toFixed(2)));
  const STEPS = [
    range(180, 0.05), range(90, 0.1), range(45, 0.2), [1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9], [1, 1.5, 2, 3, 4, 5, 6, 8],
    [1, 2, 3, 5], [1, 2, 5], [1, 3],
  ];

  // style.log_ticks of the package, for the range in view: `low` and `high` are log10, `most` what the axis has room for.
  function ticks(low, high, most) {
    const inside = (steps, stride = 1) => {
      const found = [];
      for (let e = Math.floor(low) - 1; e <= Math.ceil(high) + 1; e++) {
        if (e % stride) continue;
        for (const m of steps) {
          const at = Math.log10(m) + e;
          if (at >= low - 1e-4 && at <= high + 1e-4) found.push([m, e]);
        }
      }
      return found;
    };
    const [least, greatest] = [Math.floor(low + 1e-9), Math.floor(high + 1e-9)];
    const style = least >= -3 && greatest <= 3 ? "plain" : least >= 0 && greatest <= 8 ? "spoken" : "power";
    const label = ([m, e]) => {
      const value = Number((m * 10 ** e).toPrecision(10));
      if (style === "plain") return String(value);
      if (style === "power") return power(m, e);
      return value >= 1e6 ? value / 1e6 + "M" : value >= 1e3 ? value / 1e3 + "k" : String(value);
    };
    let chosen = null;
    if (inside([1]).length < (style === "power" ? 2 : 4)) {
      chosen = STEPS.map((steps) => inside(steps)).find((found) => found.length >= 2 && found.length <= most);
    }
    for (let stride = 1; !chosen; stride++) {
      const found = inside([1], stride);
      if (found.length <= most) chosen = found;
    }
    return { tickvals: chosen.map(([m, e]) => Number((m * 10 ** e).toPrecision(10))), ticktext: chosen.map(label) };
  }

  function retick(plot) {
    const update = {};
    for (const name of ["xaxis", "yaxis"]) {
      const axis = plot._fullLayout[name];
      if (axis.type !== "log") continue;
      const pixels = name === "xaxis" ? plot.clientWidth - 60 : plot.clientHeight - 60;
      const next = ticks(Math.min(...axis.range), Math.max(...axis.range), Math.max(2, Math.min(7, Math.floor(pixels / (name === "xaxis" ? 40 : 26)))));
      if (JSON.stringify(next.tickvals) === JSON.stringify(Array.from(axis.tickvals || [])) && plot.dataset.ticked) continue;
      update[name + ".tickvals"] = next.tickvals;
      update[name + ".ticktext"] = next.ticktext;
    }
    plot.dataset.ticked = "1";
    if (Object.keys(update).length) Plotly.relayout(plot, update);
  }

  const plots = Array.from(document.querySelectorAll(".plot"));
  for (const plot of plots) {
    const figure = JSON.parse(document.getElementById("data-" + plot.id).textContent);
    if (touch) figure.layout.dragmode = false; // a finger scrolls the page
    Plotly.newPlot(plot, figure.data, figure.layout, config).then(() => {
      retick(plot);
      plot.on("plotly_relayout", (change) => {
        if (Object.keys(change).some((k) => /range|autosize|width/.test(k))) retick(plot);
      });
    });
  }
  const widths = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (!target._fullLayout || Math.abs(target._fullLayout.width - target.clientWidth) < 2) continue;
      Plotly.Plots.resize(target).then(() => retick(target));
    }
  });
  plots.forEach((plot) => widths.observe(plot));
  const print = () => plots.forEach((p) => Plotly.Plots.resize(p));
  addEventListener("beforeprint", print);
  addEventListener("afterprint", print);

  for (const button of document.querySelectorAll("button.key")) {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      for (const plot of button.closest("figure").querySelectorAll(".plot")) {
        const which = plot.data.flatMap((trace, i) => (trace.meta === button.dataset.key ? [i] : []));
        if (which.length) Plotly.restyle(plot, { visible: shown }, which);
      }
    });
  }

  const links = new Map(Array.from(document.querySelectorAll("nav li a"), (a) => [a.getAttribute("href").slice(1), a]));
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach((a) => a.removeAttribute("aria-current"));
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-10% 0px -80% 0px" },
  );
  links.forEach((_, id) => watcher.observe(document.getElementById(id)));
})();
