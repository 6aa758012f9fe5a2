"""Every figure of the book: one palette, direct labels, alt text computed from the data.

Each function returns `(figure, alt)`; `show` displays the picture and sets the alternative text.
"""

import base64
import io
from html import escape

import matplotlib
import numpy as np

matplotlib.use("agg", force=False)
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

# Okabe and Ito: told apart with every common colour blindness
INK, BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#222222", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#8A8A8A",
)
SKY = "#56B4E9"
COLOURS = {"original": INK, "retrained": GREEN, "head-mask": GREY, "soft": BLUE, "hard": RED,
           "random-channels": ORANGE, "calibrated": SKY, "best": PURPLE, "best-masked": "#F0E442",
           "best-channels": "#7F4F24", "pour-p": "#44AA99", "together": GREEN,
           "guarded": "#882255", "deep": "#332288", "prototype": "#117733", "searched": "#999933"}
MARKERS = {"retrained": "*", "head-mask": "X", "soft": "o", "hard": "s", "random-channels": "^",
           "original": "D", "calibrated": "v", "best": "P", "best-masked": "x",
           "best-channels": "p", "pour-p": "<", "together": "d",
           "guarded": "h", "deep": "8", "prototype": ">", "searched": (4, 1, 0)}
# a penalty has one colour in every figure
PENALTIES = {"none": INK, "so": BLUE, "srip": SKY, "ocnn": ORANGE, "feature": GREEN, "hard": PURPLE}


def style() -> None:
    """The same look everywhere; sizes readable at phone width."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.95, rc={
        "figure.dpi": 110, "savefig.dpi": 110, "axes.spines.top": False,
        "axes.spines.right": False, "figure.figsize": (6.4, 3.8), "axes.titleweight": "bold",
        "axes.titlesize": "medium", "svg.hashsalt": "softprune", "figure.facecolor": "white",
    })


def show(made) -> None:
    """Display `(figure, alt)` in a notebook as one `<img>` that carries its alt text."""
    from IPython.display import HTML, display

    figure, alt = made
    buffer = io.BytesIO()
    # no date, no version: two runs give the same bytes
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    picture = base64.b64encode(buffer.getvalue()).decode()
    display(HTML(f'<img class="softprune-figure" alt="{escape(alt)}" '
                 f'src="data:image/png;base64,{picture}"/>'))


def save(figure, path) -> None:
    """Write a figure as it is shown in notebooks, without date and version, and let it go."""
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _figure(columns: int = 1, width: float = 6.4, height: float = 3.6):
    style()
    return plt.subplots(1, columns, figsize=(width, height), layout="constrained")


def learning_curves(history: list[dict]):
    """Validation accuracy and the two parts of orthogonality, by epoch."""
    figure, (left, right) = _figure(2, 7.6, 3.2)
    epochs = [h["epoch"] for h in history]
    left.plot(epochs, [100 * h["validation"] for h in history], color=BLUE)
    left.set(xlabel="epoch", ylabel="validation accuracy (%)")
    for key, colour, text in (("norm", ORANGE, "norm"), ("coherence", BLUE, "coherence")):
        values = [max(h[key], 1e-5) for h in history]
        right.plot(epochs, values, color=colour)
        right.annotate(f" {text}", (epochs[-1], values[-1]), color=colour, va="center")
    right.set(xlabel="epoch", ylabel="distance from orthonormal", yscale="log")
    right.margins(x=0.25)
    last = history[-1]
    return figure, (
        f"Two line charts over {len(history)} epochs. Validation accuracy ends at "
        f"{100 * last['validation']:.1f} percent; the norm part of the distance from orthonormal "
        f"at {last['norm']:.3g}, the coherence part at {last['coherence']:.3g}."
    )


def gram_matrices(pairs: list[tuple[str, np.ndarray]]):
    """Gram matrices K K^T of one layer, side by side on one colour scale."""
    style()
    figure, axes = plt.subplots(1, len(pairs), figsize=(3.4 * len(pairs), 3.4),
                                layout="constrained", squeeze=False)
    parts = []
    for axis, (title, gram) in zip(axes[0], pairs, strict=True):
        gram = np.asarray(gram)
        image = axis.imshow(gram, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axis.set(title=title, xticks=[], yticks=[])
        off = np.abs(gram - np.diag(np.diag(gram))).mean()
        parts.append(f"{title}: mean absolute entry off the diagonal {off:.3f}, "
                     f"mean on it {np.diag(gram).mean():.2f}")
    figure.colorbar(image, ax=axes[0], shrink=0.8)
    return figure, "Gram matrices of kernels. " + "; ".join(parts) + "."


def class_channel_heatmap(means: np.ndarray, class_names):
    """The class-by-channel table of a site, channels ordered by the class that drives them."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    means = np.asarray(means)
    scaled = means / np.maximum(means.max(0, keepdims=True), 1e-12)
    order = leaves_list(linkage(scaled.T, "average", optimal_ordering=True))
    figure, axis = _figure(1, 7.2, 0.28 * len(class_names) + 1.2)
    image = axis.imshow(scaled[:, order], aspect="auto", cmap="viridis", vmin=0, vmax=1,
                        interpolation="nearest")
    axis.set(yticks=range(len(class_names)), yticklabels=class_names, xticks=[],
             xlabel=f"{means.shape[1]} channels, similar ones side by side")
    axis.tick_params(length=0)
    figure.colorbar(image, label="share of the channel's\nlargest class mean")
    top = np.bincount(means.argmax(0), minlength=len(class_names))
    most = int(top.argmax())
    return figure, (
        f"Heat map of {len(class_names)} classes by {means.shape[1]} channels. {class_names[most]} "
        f"drives the most channels, {top[most]}; the fewest any class drives is {top.min()}."
    )


def score_bars(scores: np.ndarray, chosen: np.ndarray, cls: str, score: str):
    """All channels' scores in falling order, the selected ones coloured."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    picked = np.isin(order, chosen)
    figure, axis = _figure(1, 6.8, 3.0)
    axis.bar(range(len(order)), np.asarray(scores)[order], width=1.0,
             color=np.where(picked, RED, GREY))
    axis.axhline(0, color=INK, lw=0.8)
    axis.set(xlabel="channels, by rank", ylabel=f"score ({score})", xlim=(-1, len(order)))
    return figure, (
        f"Bar chart of {len(order)} channel scores for {cls}, falling from {max(scores):.3g} to "
        f"{min(scores):.3g}; the {len(chosen)} selected ones are coloured."
    )


def gate_lollipop(gates: np.ndarray, cls: str):
    """Gates of a site by channel, attenuated ones as lollipops hanging from 1."""
    gates = np.asarray(gates)
    figure, axis = _figure(1, 6.8, 2.6)
    touched = np.flatnonzero(gates < 1)
    axis.axhline(1, color=GREY, lw=1)
    axis.vlines(touched, gates[touched], 1, color=BLUE, lw=1)
    axis.plot(touched, gates[touched], "o", color=BLUE, ms=4)
    axis.set(xlabel="channel", ylabel="gate", ylim=(-0.05, 1.08), xlim=(-1, len(gates)))
    return figure, (
        f"Lollipop chart of {len(gates)} gates for {cls}: {len(touched)} are below 1, the smallest "
        f"{gates.min():.3g}."
    )


def frontier(points: list[dict], star: tuple[float, float] | None, cross=None, marks=()):
    """Retained against forgotten accuracy (%), a line a method; retrained star, head-mask cross.

    Args:
        points: dicts `method`, `forgotten`, `retained`, `fraction`. star, cross: (forgotten,
            retained). marks: (method, forgotten, retained) of methods with one setting.
    """
    figure, axis = _figure(1, 6.6, 4.2)
    methods = list(dict.fromkeys(p["method"] for p in points))
    for method in methods:
        mine = sorted((p for p in points if p["method"] == method), key=lambda p: p["fraction"])
        x, y = [p["forgotten"] for p in mine], [p["retained"] for p in mine]
        colour = COLOURS.get(method, PURPLE)
        axis.plot(x, y, "-", marker=MARKERS.get(method, "o"), color=colour, ms=5, label=method)
    if star:
        axis.plot(*star, "*", color=GREEN, ms=24, label="retrained", zorder=3)  # marks lie on it
    if cross:
        axis.plot(*cross, "X", color=GREY, ms=11, label="head-mask (fake)", zorder=4)
    for method, forgotten, retained in marks:
        axis.plot(forgotten, retained, marker=MARKERS[method], ls="", color=COLOURS[method], ms=10,
                  label=method, zorder=6)
    # what ruins the others is of no use: ten points below the best the picture ends
    top = max([p["retained"] for p in points] + [p[1] for p in (star, cross) if p])
    below = sum(p["retained"] < top - 10 for p in points)
    axis.set(xlabel="accuracy on the forgotten class (%)", ylabel="accuracy on the others (%)")
    axis.set_ylim(max(min(p["retained"] for p in points), top - 10) - 0.5, top + 0.5)
    axis.legend(frameon=False, fontsize="small", loc="best")
    best = min(points, key=lambda p: p["forgotten"])
    return figure, (
        f"Scatter of retained against forgotten accuracy for {', '.join(methods)}. The least "
        f"forgotten-class accuracy is {best['forgotten']:.1f} percent, by {best['method']} at "
        f"fraction {best['fraction']:g}, with {best['retained']:.1f} percent retained."
        + (f" The retrained model keeps {star[1]:.1f} percent." if star else "")
        + "".join(f" {m}: {f:.1f} percent forgotten-class, {r:.1f} retained." for m, f, r in marks)
        + (f" {below} points lie below the picture." if below else "")
    )


def where_edits_act(sites: list[str], lines: list[dict]):
    """A line an edit (`glance.acting`), a column a site: what it writes where, and who reads."""
    figure, axis = _figure(width=7.4, height=3.9)
    rows = {line["edit"]: -y for y, line in enumerate(lines)}
    column = {site: x for x, site in enumerate(sites)}
    marks = (("gates", "gates", dict(marker="o", color=BLUE, s=60)),
             ("directions", "directions", dict(marker="D", color=PURPLE, s=55)),
             ("readers", "a reader learns along", dict(marker="o", facecolors="none",
                                                       edgecolors=RED, s=190, linewidths=1.6)))
    for key, said, look in marks:
        at = [(column[site], rows[line["edit"]]) for line in lines for site in line[key]]
        axis.scatter([x for x, _ in at], [y for _, y in at], label=said, zorder=3, **look)
    for line in lines:
        y = rows[line["edit"]]
        axis.axhline(y, color="#DDDDDD", linewidth=0.8, zorder=0)
        for part in line["shifts"]:
            inside = [x for site, x in column.items() if site.split(".")[0] == part]
            axis.plot([min(inside) - 0.35, max(inside) + 0.35], [y, y], color=ORANGE, linewidth=6,
                      alpha=0.55, zorder=1, solid_capstyle="butt")
    if any(line["shifts"] for line in lines):
        axis.plot([], [], color=ORANGE, linewidth=6, alpha=0.55, label="batch norms shifted")
    axis.set_xticks(range(len(sites)), sites, rotation=60, ha="right", fontsize=8)
    several = {line["edit"]: f" ({line['pairs']} a site)" for line in lines if line["pairs"] > 1}
    axis.set_yticks(list(rows.values()), [edit + several.get(edit, "") for edit in rows])
    axis.set(xlim=(-0.6, len(sites) - 0.4), ylim=(0.6 - len(lines), 0.6))
    axis.set_xlabel("site, from the image to the classifier")
    axis.legend(loc="lower left", fontsize=8, frameon=True)
    told = [f"{line['edit']} at {', '.join(line['gates'] + line['directions'])}" for line in lines]
    return figure, "Where each edit acts in the network: " + "; ".join(told) + "."


def per_class_bars(rows: list[dict]):
    """Forgotten accuracy and retained change for each class in turn.

    Args:
        rows: dicts `cls`, `forgotten` (%), `change` (points).
    """
    figure, (left, right) = _figure(2, 7.6, 0.27 * len(rows) + 1.3)
    names, at = [r["cls"].replace("_", " ") for r in rows], np.arange(len(rows))
    most = max(r["forgotten"] for r in rows)
    left.barh(at, [r["forgotten"] for r in rows], color=RED)
    left.set(yticks=at, yticklabels=names, xlabel="forgotten class\nstill right (%)",
             xlim=(0, min(100, max(10, 1.1 * most))))
    right.barh(at, [r["change"] for r in rows], color=BLUE)
    right.axvline(0, color=INK, lw=0.8)
    right.set(yticks=at, yticklabels=[], xlabel="other classes'\nchange (points)")
    for axis in (left, right):
        axis.invert_yaxis()
    worst = max(rows, key=lambda r: r["forgotten"])
    drop = min(rows, key=lambda r: r["change"])
    if not worst["forgotten"]:
        left.text(5, (len(rows) - 1) / 2, f"0.0 % of every class,\n{len(rows)} in turn",
                  ha="center", va="center", color=GREY)
        least = "Nothing of any class is still right"
    else:
        least = f"Least forgotten: {worst['cls']}, {worst['forgotten']:.1f} percent still right"
    return figure, (
        f"Two bar charts over {len(rows)} classes. {least}. Largest loss on the others: "
        f"{drop['change']:.2f} points, when {drop['cls']} is forgotten."
    )


def ladder_dots(rows: list[dict]):
    """Mean (filled) and worst class (open) of each method: forgotten left, the others right.

    Args:
        rows: dicts `method` and, in points, `forgotten-mean`, `forgotten-worst`, `change-mean`,
            `change-worst`, `n`.
    """
    figure, (left, right) = _figure(2, 7.6, 0.42 * len(rows) + 1.3)
    at = np.arange(len(rows))
    for axis, part in ((left, "forgotten"), (right, "change")):
        for y, r in zip(at, rows, strict=True):
            colour = COLOURS.get(r["method"], INK)
            mean, worst = r[f"{part}-mean"], r[f"{part}-worst"]
            axis.plot([mean, worst], [y, y], color=colour, lw=1)
            axis.plot(mean, y, "o", color=colour, ms=7)
            axis.plot(worst, y, "o", color=colour, ms=7, mfc="white")
        axis.set(yticks=at, yticklabels=[f"{r['method']}" for r in rows])
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
    right.set(yticklabels=[], xlabel="others' change (points; dotted: bar;\nlogarithmic beyond 2)")
    right.axvline(0, color=INK, lw=0.8)
    right.axvline(-0.5, color=GREY, ls=":")
    right.set_xscale("symlog", linthresh=2)  # or one method's ruin hides what the others differ by
    right.margins(x=0.08)
    low, high = right.get_xlim()
    ticks = [t for t in (-50, -20, -10, -5, -2, -1, 0, 1, 2, 5) if low <= t <= high]
    right.set_xticks(ticks, [f"{t:g}" for t in ticks])
    right.minorticks_off()
    left.set(xlabel="forgotten class still right\n(%), mean filled, worst open")
    parts = [f"{r['method']} {r['forgotten-mean']:.1f} percent (worst {r['forgotten-worst']:.1f}) "
             f"at {r['change-mean']:+.2f} points (worst {r['change-worst']:+.2f})" for r in rows]
    return figure, "Dot chart over classes forgotten in turn. " + "; ".join(parts) + "."


def panels_at_equal_forgetting(panels: dict[str, dict[str, list[dict]]]):
    """Others' change against forgotten accuracy, a line a group, bands over training seeds.

    Args:
        panels: title -> the same groups, name -> dicts `forgotten`, `change`, `low`, `high` in
            points, by fraction.
    """
    figure, axes = _figure(len(panels), 7.6, 3.6)
    for axis, (title, groups) in zip(axes, panels.items(), strict=True):
        _curves(axis, groups)
        axis.set_title(title, fontsize="medium")
    low = min(axis.get_ylim()[0] for axis in axes)
    for axis in axes:  # to be compared, so of one height
        axis.set_ylim(bottom=low)
    axes[0].set_ylabel("other classes' change (points)")
    axes[-1].legend(frameon=False, fontsize="small")
    parts = [f"{title}: {_reached(groups)}" for title, groups in panels.items()]
    return figure, f"Forgetting against retention, mean over seeds. {'. '.join(parts)}."


def _curves(axis, groups: dict[str, list[dict]]) -> None:
    """One panel: a line a group, with its band."""
    palette = sns.color_palette("colorblind")
    for k, (name, points) in enumerate(groups.items()):
        penalty = name.split()[0]  # has one colour in every figure; other groups are counted
        colour = PENALTIES.get(penalty, palette[k])
        x = [p["forgotten"] for p in points]
        axis.plot(x, [p["change"] for p in points], "o-", ms=3, color=colour, label=name)
        axis.fill_between(x, [p["low"] for p in points], [p["high"] for p in points],
                          color=colour, alpha=0.15, lw=0)
    axis.axhline(0, color=GREY, lw=0.8)
    useful = [p["change"] for pts in groups.values() for p in pts if p["forgotten"] > 1]
    low = min(useful, default=-5)
    axis.set(xlabel="forgotten class still right (%)", ylim=(max(low, -12) - 0.5, 1.5))
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(-0.05, 105)


def _reached(groups: dict[str, list[dict]]) -> str:
    """In words, for those who do not see it: how far each line goes, and at what price."""
    parts = []
    for name, points in groups.items():
        best = min(points, key=lambda p: p["forgotten"])
        parts.append(f"{name} reaches {best['forgotten']:.1f} percent at {best['change']:+.2f}")
    return "; ".join(parts)


def requests_in_time(arrived: dict[str, list[dict]]):
    """What is left of all forgotten classes, and what the others lost, request by request.

    Args:
        arrived: method -> what `requests.one_after_another` gives, shares.
    """
    figure, (left, right) = _figure(2, 7.6, 3.2)
    for method, told in arrived.items():
        said = {"color": COLOURS.get(method, PURPLE), "label": method, "ms": 4,
                "marker": MARKERS.get(method, "o")}
        for axis, key in ((left, "forgotten"), (right, "change")):
            axis.plot([t["classes"] for t in told], [100 * t[key] for t in told], **said)
    left.set(xlabel="requests so far", ylabel="forgotten classes still right (%)", ylim=(-2, None))
    right.set(xlabel="requests so far", ylabel="other classes' change (points)")
    right.axhline(0, color=GREY, lw=0.8)
    left.legend(frameon=False, fontsize="small")
    parts = [f"{m} leaves {100 * t[-1]['forgotten']:.1f} percent at {100 * t[-1]['change']:+.1f}"
             for m, t in arrived.items()]
    last = len(next(iter(arrived.values())))
    return figure, f"One request after another. After {last}: " + "; ".join(parts) + " points."


def hidden_or_gone(rows: list[dict]):
    """What is left of a class by the network's own classifier, and what a refitted one finds.

    Args:
        rows: dicts `edit`, `right` and `refit`, percent of the class's test images; the last is
            the network retrained without the class.
    """
    figure, axis = _figure(1, 6.0, 0.34 * len(rows) + 1.3)
    goal = rows[-1]
    axis.axvline(goal["refit"], color=GREEN, lw=1, ls=":")
    for y, row in enumerate(rows):
        colour = COLOURS.get(row["edit"], PURPLE)
        axis.plot([row["right"], row["refit"]], [y, y], color=colour, lw=1.5, alpha=0.5)
        axis.plot(row["right"], y, "o", color=colour, ms=7)
        axis.plot(row["refit"], y, "o", color=colour, ms=7, mfc="white", mew=1.5)
        axis.annotate(f"{row['refit']:.0f}", (max(row["right"], row["refit"]), y), xytext=(9, 0),
                      textcoords="offset points", va="center", color=INK, fontsize="small")
    axis.set(yticks=range(len(rows)), yticklabels=[r["edit"] for r in rows], xlim=(-3, 100),
             xlabel="of the forgotten class's test images (%)\n● still right   "
                    "○ found by a classifier refitted on the features")
    axis.invert_yaxis()
    axis.tick_params(axis="y", length=0)
    said = [f"{r['edit']} {r['right']:.0f} and {r['refit']:.0f} percent" for r in rows]
    return figure, ("Dumbbell chart, share of a forgotten class that is still right, and that a "
                    f"refitted classifier finds: {'; '.join(said)}.")


MOST = 12  # classes that a figure names one by one


def confusion_rows(rows: dict[str, np.ndarray], class_names, cls: str):
    """Where the forgotten class's test images go, one row a model.

    Of many classes those are shown that a row answers most, and the rest together.
    """
    names = np.array(class_names)
    matrix = 100 * np.stack([np.asarray(r) for r in rows.values()])
    often = [f"{name}: most often {names[r.argmax()]}, {r.max():.0f} percent"
             for name, r in zip(rows, matrix, strict=True)]
    if len(names) > MOST:
        first = np.sort(np.argsort(-matrix.max(0), kind="stable")[: MOST - 1])
        rest = 100 - matrix[:, first].sum(1, keepdims=True)
        matrix = np.hstack([matrix[:, first], rest])
        names = np.append(names[first], f"{len(names) - len(first)} others")
    figure, axis = _figure(1, 7.2, 0.42 * len(rows) + 1.7)
    sns.heatmap(matrix, ax=axis, cmap="Blues", vmin=0, vmax=100, annot=True, fmt=".0f", cbar=False,
                xticklabels=[n.replace("_", " ") for n in names], yticklabels=list(rows))
    axis.set(xlabel="answered as (% of the class's test images)")
    plt.setp(axis.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    axis.tick_params(axis="x", length=0)
    axis.tick_params(axis="y", rotation=0, length=0)
    return figure, f"Predictions for test images of {cls}. " + "; ".join(often) + "."


BANDED = ("original", "soft", "best", "retrained")  # eight bands would hide each other


def roc_curves(rates: np.ndarray, curves: dict[str, dict]):
    """ROC on log axes, from the smallest false positive rate that can be read, with the bands of
    `BANDED`.

    Args:
        rates: false positive rates, (F,), from that one to 1.
        curves: by model `rate`, `low`, `high`, each (F,), of true positives; `auc`, and of how
            many `networks` and `images` it is.
    """
    figure, axis = _figure(1, 5.8, 5.2)
    axis.plot(rates, rates, ":", color=GREY)
    said = {n: f"{c['networks']} network{'s' * (c['networks'] > 1)}" for n, c in curves.items()}
    most = max(curves, key=lambda name: curves[name]["networks"])
    for name, c in curves.items():
        colour = COLOURS.get(name, PURPLE)
        few = f" ({said[name]})" if said[name] != said[most] else ""
        axis.plot(rates, c["rate"], color=colour, label=f"{name}, AUC {c['auc']:.3f}{few}",
                  drawstyle="steps-post")
        if name in BANDED:
            axis.fill_between(rates, c["low"], c["high"], color=colour, alpha=0.15, lw=0,
                              step="post")
    axis.set(xscale="log", yscale="log", xlim=(rates[0], 1), ylim=(rates[0], 1.05),
             xlabel="false positive rate", ylabel="true positive rate")
    for side in (axis.xaxis, axis.yaxis):  # a decade or two: powers of ten alone say too little
        side.set_major_locator(LogLocator(subs=(1, 2, 5)))
        side.set_major_formatter("{x:g}")
        side.set_minor_formatter(NullFormatter())
    axis.legend(frameon=False, fontsize="small", alignment="left", title_fontsize="small", ncols=2,
                bbox_to_anchor=(-0.15, -0.14), loc="upper left",
                title=f"{said[most]}, {curves[most]['images']:,} images")
    parts = [f"{name} {c['auc']:.3f} ({said[name]})" for name, c in curves.items()]
    return figure, (f"ROC curves of the membership attack on {curves[most]['images']} images, log "
                    f"axes, with 95 percent bands of {', '.join(n for n in curves if n in BANDED)}."
                    f" AUC: {', '.join(parts)}. False positive rates below {rates[0]:.2g} are not "
                    "shown.")


def auc_intervals(rows: list[dict]):
    """AUC with interval by attack and model.

    Args:
        rows: dicts `attack`, `method`, `auc`, `low`, `high`.
    """
    attacks = list(dict.fromkeys(r["attack"] for r in rows))
    methods = list(dict.fromkeys(r["method"] for r in rows))
    step = 0.8 / len(methods)  # of a line: the rest is air between one attack and the next
    figure, axis = _figure(1, 6.8, 0.13 * len(attacks) * len(methods) + 1.6)
    for i, method in enumerate(methods):
        mine = {r["attack"]: r for r in rows if r["method"] == method}
        y = np.arange(len(attacks)) + (i - (len(methods) - 1) / 2) * step
        auc = np.array([mine[a]["auc"] for a in attacks])
        reach = np.array([[mine[a]["auc"] - mine[a]["low"], mine[a]["high"] - mine[a]["auc"]]
                          for a in attacks]).T
        axis.errorbar(auc, y, xerr=reach, marker=MARKERS.get(method, "o"), ls="", ms=5,
                      color=COLOURS.get(method, PURPLE), label=method, elinewidth=1)
    for between in range(1, len(attacks)):
        axis.axhline(between - 0.5, color=GREY, lw=0.5, alpha=0.5)
    axis.axvline(0.5, color=GREY, ls=":")
    axis.set(yticks=range(len(attacks)), yticklabels=attacks, xlabel="AUC (½: nothing to tell)")
    axis.invert_yaxis()
    axis.legend(frameon=False, fontsize="small", bbox_to_anchor=(1, 1), loc="upper left")
    top = max(rows, key=lambda r: abs(r["auc"] - 0.5))
    return figure, (
        f"AUC with 95 percent intervals for {len(attacks)} attacks on {', '.join(methods)}. "
        f"Furthest from one half: {top['attack']} on {top['method']}, {top['auc']:.3f}."
    )


def digit_pictures(images: np.ndarray, labels, guesses, count: int = 12):
    """Which digits turn into what: pictures of digits only, never of another set."""
    count = min(count, len(images))
    style()
    figure, axes = plt.subplots(2, (count + 1) // 2, figsize=(7, 2.9), layout="constrained")
    for axis, image, label, guess in zip(axes.flat, images, labels, guesses, strict=False):
        axis.imshow(image, cmap="gray_r", interpolation="nearest")
        axis.set_title(f"{label} → {guess}", fontsize="x-small", weight="normal")
    for axis in axes.flat:
        axis.axis("off")
    names, tally = np.unique(list(guesses), return_counts=True)
    return figure, (f"{count} test digits of the forgotten class with what they are now taken for; "
                    f"most often {names[tally.argmax()]}.")


def percent_grid(values: dict[str, dict[str, float]], what: str):
    """A heat map of percentages, one row a model, one column a test.

    Args:
        values: row -> column -> share in [0, 1]. what: a sentence for the alt text.
    """
    columns = list(dict.fromkeys(c for row in values.values() for c in row))
    matrix = 100 * np.array([[row.get(c, np.nan) for c in columns] for row in values.values()])
    figure, axis = _figure(1, 7.2, 0.4 * len(values) + 1.6)
    sns.heatmap(matrix, ax=axis, cmap="Blues", vmin=0, vmax=100, annot=True, fmt=".0f",
                cbar=False, xticklabels=columns, yticklabels=list(values))
    axis.tick_params(axis="x", rotation=35, length=0)
    axis.tick_params(axis="y", rotation=0, length=0)
    parts = [f"{name} from {np.nanmin(r):.0f} to {np.nanmax(r):.0f} percent, highest at "
             f"{columns[int(np.nanargmax(r))]}" for name, r in zip(values, matrix, strict=True)]
    return figure, f"{what} " + "; ".join(parts) + "."


def relearning(curves: dict[str, dict[str, list[float]]], steps):
    """Recall of the class against steps of fine-tuning, a panel for each attacker.

    Args:
        curves: panel -> model -> recalls in [0, 1] after `steps`.
    """
    figure, axes = _figure(len(curves), 3.6 * len(curves) + 0.6, 3.8)
    x = np.arange(len(steps))  # equal distances: the first steps are what matters
    parts = []
    for axis, (panel, lines) in zip(np.atleast_1d(axes), curves.items(), strict=True):
        for name, line in lines.items():
            axis.plot(x, 100 * np.array(line), marker=MARKERS.get(name, "o"), ms=4, lw=1.3,
                      color=COLOURS.get(name, PURPLE), label=name)
        axis.set(title=panel, xticks=x, xticklabels=list(steps), xlabel="steps", ylim=(-3, 103))
        half = {n: next((s for s, v in zip(steps, line, strict=True) if v >= 0.5), None)
                for n, line in lines.items()}
        parts.append(f"{panel}: " + ", ".join(
            f"{n} " + (f"at half after {s} steps" if s is not None else "below half throughout")
            for n, s in half.items()))
    np.atleast_1d(axes)[0].set_ylabel("class recognised (%)")
    np.atleast_1d(axes)[-1].legend(frameon=False, fontsize="small", bbox_to_anchor=(1, 1),
                                  loc="upper left")
    return figure, "Relearning curves. " + ". ".join(parts) + "."


# --- head to head --------------------------------------------------------------------------------


def _kind(method: str) -> tuple[str, str]:
    """Colour and marker: the method's own as elsewhere, baselines by what they cost."""
    if method in COLOURS:
        return COLOURS[method], MARKERS[method]
    return INK, "."


# where a point's label may stand, the nearest first (points of print)
_OFFSETS = ((6, 5), (6, -11), (-6, 5), (-6, -11), *(
    (dx, dy) for far in range(15, 96, 10) for dx in (6, -6, 30, -30) for dy in (far, -far - 6)))


def _place(axis, points: list[tuple[float, float, str, str]], texts=()) -> None:
    """Label every point beside it, at the first of `_OFFSETS` inside the axes where nothing lies
    and no other point is nearer; if there is none, where nothing lies.

    Args:
        points: x, y, label, colour. texts: what stands on the axis already.
    """
    figure = axis.figure
    figure.canvas.draw()
    frame = axis.get_window_extent()
    taken = [t.get_window_extent() for t in texts]
    reach = 6 * figure.dpi / 72  # half a marker and some air, in pixels
    at = {text: axis.transData.transform((x, y)) for x, y, text, _ in points}
    marks = {text: Bbox.from_extents(*(centre + side for side in (-reach, reach)))
             for text, centre in at.items()}

    def put(x, y, text, colour, dx, dy):
        label = axis.annotate(text, (x, y), (dx, dy), textcoords="offset points", color=colour,
                              fontsize=7.5, ha="left" if dx > 0 else "right", zorder=5,
                              path_effects=[withStroke(linewidth=2, foreground="white")],
                              arrowprops={"arrowstyle": "-", "lw": 0.4, "color": GREY}
                              if abs(dy) > 12 else None)
        label.update_positions(figure.canvas.get_renderer())
        return label, Text.get_window_extent(label)  # without its line, which may cross others

    for x, y, text, colour in sorted(points):
        others = [box for name, box in marks.items() if name != text]
        free = None
        for offset in _OFFSETS:
            label, box = put(x, y, text, colour, *offset)
            label.remove()
            if (frame.y0 < box.y0 and frame.x0 < box.x0
                    and not any(box.overlaps(other) for other in taken + others)):
                free = free or offset
                if min(at, key=lambda name, box=box: _apart(box, at[name])) == text:
                    free = offset
                    break
        taken.append(put(x, y, text, colour, *(free or _OFFSETS[-1]))[1])


def _apart(box: Bbox, point) -> float:
    """Pixels between a box and a point."""
    inside = np.clip(point, (box.x0, box.y0), (box.x1, box.y1))
    return float(np.hypot(*(np.asarray(point) - inside)))


def quality_against_time(points: list[dict], limit: float, floor: float | None = None):
    """Distance to the retrained model against the time of a request (log), a labelled point each.

    Args:
        points: dicts `method`, `seconds` (select and edit) and `distance` (bits); the method
            `retrained` among them is drawn as the star. limit: seconds in which this machine reads
            and writes all weights once. floor: distance of networks retrained from other seeds.
    """
    figure, axis = _figure(1, 7.6, 4.8)
    labels = []
    for p in points:
        colour, marker = _kind(p["method"])
        size = {".": 9, "*": 15}.get(marker, 7)
        axis.plot(p["seconds"], p["distance"], marker=marker, ls="", color=colour, ms=size,
                  zorder=4)
        labels.append((p["seconds"], p["distance"], p["method"], colour))
    axis.axvline(limit, color=GREY, ls=":", zorder=1)
    texts = []
    if floor is not None:
        axis.axhline(floor, color=GREEN, ls=":", zorder=1)
        texts.append(axis.text(0.42, floor, "retrained, other seeds", color=GREEN, fontsize=7.5,
                               va="bottom", ha="center", transform=axis.get_yaxis_transform()))
    axis.set(xscale="log", xlabel="request: select and edit (s)",
             ylabel="confusion row's distance\nfrom the retrained model's (bit)")
    times = [p["seconds"] for p in points] + [limit]
    axis.set_xlim(min(times) / 8, max(times) * 8)
    top = max(p["distance"] for p in points)
    axis.set_ylim(-0.09 * max(top, 0.1), 1.2 * max(top, 0.1))
    axis.text(limit, axis.get_ylim()[1], " all weights read and written once", color=GREY,
              fontsize=7.5, va="top")
    _place(axis, labels, texts)
    parts = [f"{p['method']} {p['seconds']:.2g} s, {p['distance']:.3f} bit"
             for p in sorted(points, key=lambda p: p["seconds"])]
    return figure, (
        "Scatter of the distance from the retrained model's confusion row against the seconds of a "
        "request, log axis. " + "; ".join(parts)
        + f". All weights are read and written once in {limit:.2g} s."
        + (f" Networks retrained from other seeds lie at {floor:.3f} bit." if floor else ""))


def rank_intervals(ranks: dict[str, dict[str, tuple[float, float, float]]]):
    """Ranks by distance to the retrained model, 1 the nearest; one panel a criterion.

    Args:
        ranks: criterion -> method -> (median, low, high).
    """
    criteria, methods = list(ranks), list(next(iter(ranks.values())))
    figure, axes = _figure(len(criteria), 8.2, 0.24 * len(methods) + 1.2)
    methods.sort(key=lambda m: ranks[criteria[1]][m][0])
    for axis, criterion in zip(np.atleast_1d(axes), criteria, strict=True):
        for y, method in enumerate(methods):
            middle, low, high = ranks[criterion][method]
            colour, marker = _kind(method)
            axis.plot([low, high], [y, y], color=colour, lw=1.5)
            axis.plot(middle, y, marker=marker, ls="", color=colour, ms={".": 9}.get(marker, 6))
        axis.set(title=criterion, xlim=(0.3, len(methods) + 0.7), xlabel="rank")
        first = axis is np.atleast_1d(axes)[0]
        axis.set(yticks=range(len(methods)), yticklabels=methods if first else [])
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
    parts = []
    for criterion in criteria:
        near = sorted(methods, key=lambda m, c=criterion: ranks[c][m][0])[:3]
        parts.append(f"{criterion}: " + ", ".join(
            f"{m} {ranks[criterion][m][0]:.0f} [{ranks[criterion][m][1]:.0f}, "
            f"{ranks[criterion][m][2]:.0f}]" for m in near))
    return figure, (f"Ranks of {len(methods)} methods with 90 percent bootstrap intervals, 1 "
                    "nearest the retrained model. Nearest by " + "; ".join(parts) + ".")
