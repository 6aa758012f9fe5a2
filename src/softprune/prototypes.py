r"""A rung without a fit: directions inside the network in closed form, from the table alone.

A class's *prototype* mu_c at a site is its row of the class-by-channel table. With shares p_c and
variances s_c^2 of the channels within classes, of the same table,

    S = sum_c p_c (mu_c mu_c^T + spread diag(s_c^2)),    v_f = S^-1 mu_f, normed to length 1,

v_f is the direction that reads class f and as little of the others as can be: of all v with
v^T mu_f = 1 a multiple of it has the least v^T S v. Channels at every place of the map become
h - alpha v_f (v_f^T h): alpha = 1 takes out what lies along it, a larger one turns it round, so
that the layers behind read the class's opposite. One solve a site gives the directions of all
classes, a request looks its own up, and the edit folds as any along directions does, exactly:
W (I - alpha v v^T).

The sites are the last few in front of the last, where the classifier stays as it was; alpha rises
along them, since later ones tell classes better apart.

Source: ours. v is the least-power filter of Capon (1969). The nearest published relative projects
residuals of prototypes out of every layer, by strengths that rise with depth, too (Hatami et al.,
2026).
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from softprune import artifacts, channels, choosing, paths, profiles, pruning, requests
from softprune.errors import UserError

RUNG = "prototype"
FILE = "prototypes.json"
LOSS = 0.004  # accuracy that a setting may cost the others on validation images; the bar has 0.005
NEAR = 1.0  # a class's image counts as left, when a setting is chosen, until it is told by so much

SPREADS = (0.1, 0.2, 0.5, 1.0, 3.0)
SITES = (1, 2, 3, 6)
ALPHAS = (2.0, 3.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class PrototypeOptions:
    """Where directions are, and how strong; `options` has the setting of a data set."""

    # how many of the sites inside whose map layers alone read (`Site.read`), from the last on
    sites: int = 2
    # at the last of them; of n sites the i-th has i / n of it
    alpha: float = 3.0
    # of the channels' variances within classes
    spread: float = 0.2

    def told(self) -> dict:
        """As a dict for records."""
        return dataclasses.asdict(self)


def options(dataset: str, profile: str = "") -> PrototypeOptions:
    """The setting for a data set: as `choose` left it in `data/prototypes.json`, else the base."""
    return PrototypeOptions(**setting_of(chosen(), dataset, profile))


def chosen(file: str = FILE) -> dict[str, dict]:
    """A file of `data` with choices: data set -> `set` (options) and `record` (its key)."""
    path = paths.root() / "data" / file
    return artifacts.read_json(path, "the settings that `softprune fit --choose` wrote", {})


def setting_of(found: dict[str, dict], dataset: str, profile: str) -> dict:
    """The options that `chosen` has for a data set: its profile's own, else the set's, else {}."""
    entries = (profiles.chosen_under(dataset, profile), dataset)
    return next((found[e]["set"] for e in entries if e in found), {})


def where(model: nn.Module, count: int) -> list:
    """The `count` last sites inside the network that carry directions, in its order."""
    return [s for s in model.sites()[:-1] if s.read][-count:]


def counts(model: nn.Module, wanted) -> list[int]:
    """`wanted` numbers of sites, none larger than what a model has."""
    most = len(where(model, max(wanted)))
    return sorted({min(count, most) for count in wanted})


@torch.no_grad()
def directions(table: channels.ClassChannelTable, sites, options: PrototypeOptions
               ) -> dict[str, Tensor]:
    """u and v of every class at each of `sites`: name of the edit -> float32 (C, 2, J)."""
    made, share = {}, table.counts.double() / table.counts.sum()
    for number, site in enumerate(sites, 1):
        mean, square = (getattr(table, moment)["mean"][site.name].double()
                        for moment in ("mean", "square"))
        within = share @ (square - mean.square()).clamp_min(0)
        whole = (mean.T * share) @ mean + options.spread * torch.diag(within)
        # a channel that is never active has no variance, and nothing to be read
        whole += 1e-6 * whole.diagonal().mean() * torch.eye(len(whole), dtype=whole.dtype)
        v = nn.functional.normalize(torch.linalg.solve(whole, mean.T).T)
        alpha = options.alpha * number / len(sites)
        made[pruning.DIRECTION + site.name] = torch.stack([-alpha * v, v], 1).float()
    return made


def request(found: dict[str, Tensor], forget) -> pruning.Gates:
    """Directions of a request, looked up: (classes, 2, J) at every site, in the classes' order."""
    return {name: pairs[sorted(forget)] for name, pairs in found.items()}


def of_model(model: nn.Module, table: channels.ClassChannelTable, setting: PrototypeOptions
             ) -> dict[str, Tensor]:
    """`directions` at the sites of a model that the setting names."""
    if not where(model, setting.sites):
        raise UserError("no site inside this network carries directions: its sites need `read` "
                        "and `consumers`")
    return directions(table, where(model, setting.sites), setting)


def prepare(bench: requests.Bench, setting: PrototypeOptions | None = None) -> dict[str, Tensor]:
    """Directions of all classes of a checkpoint, by its data set's setting or another."""
    own = setting or options(bench.images.name, bench.sidecar["config"]["profile"])
    return of_model(bench.model, bench.table, own)


# --- the setting ---------------------------------------------------------------------------------


def lead(logits: Tensor, cls: int) -> Tensor:
    """z_f less the largest other logit, (N,): above 0 an image is told to be of the class.

    Example:
        >>> lead(torch.tensor([3.0, 1, 2])[None], 0).tolist()
        [1.0]
    """
    rival = logits.clone()
    rival[:, cls] = -torch.inf
    return logits[:, cls] - rival.amax(1)


def judge(bench: requests.Bench, setting, edit_of: Callable[[int], pruning.Gates], classes) -> dict:
    """Each of `classes` forgotten in turn by what `edit_of` gives, on the validation split.

    Returns:
        `options`, which are `setting`, the numbers of `requests.summarise`, and `left`: the share
        of a class's images whose logit is not `NEAR` below the largest other's yet. A setting whose
        first two classes both cost the others more than twice `LOSS` is not carried on: its `n`
        says so.
    """
    turn, left = {}, []
    labels = bench.images.split("validation")[1]
    for cls in classes:
        edit = edit_of(cls)
        requests.add(turn, bench, cls, edit, "validation")
        own = bench.gated_outputs(edit, "validation")[1][labels == cls]
        left.append((lead(own, cls) > -NEAR).double().mean().item())
        lost = [b - r for r, b in zip(turn["retained"], turn["before"], strict=True)]
        if len(lost) == 2 and min(lost) > 2 * LOSS:
            break
    return {"options": setting, "left": sum(left) / len(left), **requests.summarise(turn)}


def prefer(tried: list[dict], worst: float = torch.inf) -> dict:
    """Of what costs the others at most `LOSS` the one that leaves least, of equals the one that
    costs least; where everything costs more, the one that costs least of those that leave less than
    one percent, or else leaves least.

    Args:
        worst: what the dearest request may cost, of those that cost at most `LOSS`.
    """
    carried = max(t["n"] for t in tried)
    tried = [t for t in tried if t["n"] == carried]
    within = [t for t in tried if t["change-mean"] >= -LOSS and t["change-worst"] >= -worst]
    if not within:
        gone = [t for t in tried if t["left"] < 0.01]
        return (max(gone, key=lambda t: t["change-mean"]) if gone
                else min(tried, key=lambda t: t["left"]))
    return min(within, key=lambda t: (t["left"], -t["change-mean"]))


def choose(bench: requests.Bench, log: Callable[[dict], None] | None = None) -> PrototypeOptions:
    """Try every setting on the validation split, write a run record (stage `prototype-choice`), and
    put the one that `prefer` takes into `data/prototypes.json`."""
    began, tried = time.perf_counter(), []
    for sites in counts(bench.model, SITES):
        for spread in SPREADS:
            for alpha in ALPHAS:
                own = PrototypeOptions(sites=sites, alpha=alpha, spread=spread)
                found = prepare(bench, own)
                tried.append(judge(bench, own, lambda cls, f=found: request(f, (cls,)),
                                   choosing.looked_at(bench)))
                if log:
                    log(tried[-1])
    return remember(bench, (RUNG, FILE), tried, prefer(tried)["options"], began)


def remember(bench: requests.Bench, kept: tuple[str, str], tried: list[dict], taken, began: float):
    """Write what `judge` told of every setting into a run record (its stage is the rung's name and
    `-choice`), and the one that was taken into a file of `data`, beside those of other sets.

    Args:
        kept: the rung, and the file's name.
        began: `time.perf_counter()` of the start.

    Returns:
        `taken`.
    """
    rung, file = kept
    config = bench.sidecar["config"]
    key = artifacts.short_hash({"config": config, "rung": rung, "weights": bench.sidecar["sha256"]})
    rows = [artifacts.row(rung, f"trial-{k}", 100 * t[k], "points", split="validation", n=t["n"],
                          gate=f"trial-{number}")
            for number, t in enumerate(tried)
            for k in ("left", "forgotten-mean", "forgotten-worst", "change-mean", "change-worst")]
    artifacts.write_record(f"{rung}-choice", key, config, rows,
                           artifacts.provenance(time.perf_counter() - began),
                           {"trials": [t["options"].told() for t in tried], "set": taken.told()})
    entry = profiles.chosen_under(bench.images.name, config["profile"])
    artifacts.write_json(paths.root() / "data" / file,
                         chosen(file) | {entry: {"set": taken.told(), "record": key}})
    return taken
