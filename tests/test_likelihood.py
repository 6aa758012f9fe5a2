import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from softprune import likelihood, membership, roc
from softprune.errors import UserError


def simulated(models=64, images=400, distance=1.0, seed=0):
    """phi ~ N(distance if seen, 1): what the closed forms are about."""
    rng = np.random.default_rng(seed)
    member = rng.permuted(np.tile(np.arange(models) % 2 == 0, (images, 1)), axis=1).T
    return rng.normal(0, 1, (models, images)) + distance * member, member


def in_turn(phi, member, **options):
    return likelihood.each_in_turn(len(phi), member, lambda k, rest: likelihood.lira(
        phi[k], phi[rest], member[rest], **options))


def pooled_auc(results):
    return np.mean([roc.delong(a, b)[0] for a, b in results])


@pytest.mark.parametrize("shadows", [4, 16])
def test_offline_one_sided_has_its_closed_form(shadows):
    """AUC = Phi(d / sqrt(2 (1 + 2/K))) with K/2 out-models and known variance."""
    rng = np.random.default_rng(shadows)
    n, d = 40_000, 1.0
    member = np.zeros((shadows, n), bool)
    member[::2] = True
    phi = rng.normal(0, 1, (shadows, n)) + d * member
    score_in = likelihood.lira(rng.normal(d, 1, n), phi, member, "offline")
    score_out = likelihood.lira(rng.normal(0, 1, n), phi, member, "offline")
    auc, variance = roc.delong(score_in, score_out)
    expected = norm.cdf(d / math.sqrt(2 * (1 + 2 / shadows)))
    assert abs(auc - expected) < 4 * math.sqrt(variance)


def test_two_sided_offline_is_worse_and_one_sided_is_ours():
    """The published mistake: |z| gives about .635 where .760 is due (many models)."""
    rng = np.random.default_rng(0)
    auc_one = roc.delong(rng.normal(1, 1, 50_000), rng.normal(0, 1, 50_000))[0]
    rng = np.random.default_rng(0)
    auc_two = roc.delong(abs(rng.normal(1, 1, 50_000)), abs(rng.normal(0, 1, 50_000)))[0]
    assert auc_one == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.005)
    # |N(1,1)| above |N(0,1)|: 2 p (1 - p) at p = Phi(-1/sqrt 2), from rotating by 45 degrees
    p = norm.cdf(-1 / math.sqrt(2))
    assert auc_two == pytest.approx(1 - 2 * p * (1 - p), abs=0.005) == pytest.approx(.635, abs=.005)
    far = likelihood.lira(np.array([-9.0]), np.zeros((4, 1)) + np.arange(4)[:, None] / 4,
                          np.array([[True], [True], [False], [False]]), "offline")
    assert far[0] < 0  # far below the outs is no member


def null_error(positives: int, negatives: int) -> float:
    """Standard error of an AUC where there is nothing to tell, in closed form."""
    return math.sqrt((positives + negatives + 1) / (12 * positives * negatives))


def test_online_with_many_models_reaches_the_best_test_there_is():
    phi, member = simulated(models=256, images=300)
    results = in_turn(phi, member)
    assert pooled_auc(results) == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.01)


def test_online_by_hand():
    phi = np.array([[2.0], [4.0], [0.0], [1.0]])
    member = np.array([[True], [True], [False], [False]])
    # in: mean 3, out: mean .5; fixed: sqrt((1 + 1 + .25 + .25) / 2) would mix them, each side is
    # pooled by itself: in sqrt(2 / 1), out sqrt(.5 / 1)
    found = likelihood.lira(np.array([3.0]), phi, member)
    expected = norm.logpdf(3, 3, math.sqrt(2)) - norm.logpdf(3, 0.5, math.sqrt(0.5))
    assert found[0] == pytest.approx(expected, abs=1e-9)
    each = likelihood.lira(np.array([3.0]), phi, member, variance="each")
    assert each[0] == pytest.approx(expected, abs=1e-9)  # one image: both are the same


@pytest.mark.parametrize("variance", likelihood.VARIANCES)
@pytest.mark.parametrize("mode", likelihood.MODES)
def test_shuffled_labels_give_one_half_and_a_planted_leak_is_found(mode, variance):
    def attack(phi, member):
        return pooled_auc(in_turn(phi, member, mode=mode, variance=variance))

    phi, member = simulated(models=32, images=600, seed=1)
    assert attack(phi, member) > 0.68
    shuffled = np.random.default_rng(2).permuted(member, axis=0)
    error = null_error(300, 300) / math.sqrt(32)
    assert abs(attack(phi, shuffled) - 0.5) < 5 * error


def test_several_numbers_at_once_have_their_closed_form():
    """AUC = Phi(sqrt(d' S^-1 d / 2)): correlated numbers, of which each alone tells little."""
    rng = np.random.default_rng(0)
    covariance = np.array([[1.0, 0.8], [0.8, 1.0]])
    shift = np.array([0.6, -0.2])
    models, images = 200, 300
    member = rng.permuted(np.tile(np.arange(models) % 2 == 0, (images, 1)), axis=1).T
    phi = rng.multivariate_normal([0, 0], covariance, (models, images)) + member[..., None] * shift
    auc = pooled_auc(likelihood.each_in_turn(40, member, lambda k, rest: likelihood.lira_vector(
        phi[k], phi[rest], member[rest])))
    expected = norm.cdf(math.sqrt(shift @ np.linalg.solve(covariance, shift) / 2))
    assert auc == pytest.approx(expected, abs=0.015)
    one = pooled_auc(likelihood.each_in_turn(40, member, lambda k, rest: likelihood.lira(
        phi[k, :, 0], phi[rest, :, 0], member[rest])))
    assert one < expected - 0.04
    shuffled = np.random.default_rng(2).permuted(member, axis=0)
    none = pooled_auc(likelihood.each_in_turn(40, shuffled, lambda k, rest: likelihood.lira_vector(
        phi[k], phi[rest], shuffled[rest])))
    assert abs(none - 0.5) < 0.02


def test_the_others_are_read_without_the_own_class():
    z = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], dtype=torch.float64).log()
    found = likelihood.other_confidences(torch.stack([z, z]), torch.tensor([0, 2]))
    assert found.shape == (2, 2, 2)
    assert found[0, 0].exp().tolist() == pytest.approx([2 / 3, 1 / 3])
    assert found[1, 1].exp().tolist() == pytest.approx([7 / 9, 2 / 9])


def test_rmia_by_hand():
    p = np.array([[0.8], [0.2]])
    member = np.array([[True], [False]])
    population = np.array([[0.5, 0.25], [0.5, 0.25]])
    # online: p(x) = (.8 + .2) / 2 = .5, ratio .6 / .5 = 1.2; population, a = 1: p(z) = out
    target = np.array([0.6])
    found = likelihood.rmia(target, p, member, np.array([0.5, 0.5]), population, offline_a=1.0)
    assert found.tolist() == [0.5]  # ratios 1 and 2: one of two is at most 1.2
    # offline, a = .3: p(x) = (1.3 * .2 + .7) / 2 = .48, ratio 1.25;
    # p(z) = (1.3 * .5 + .7) / 2 = .675 and .5125, ratios .741 and .976
    found = likelihood.rmia(target, p, member, np.array([0.5, 0.5]), population, "offline")
    assert found.tolist() == [1.0]
    found = likelihood.rmia(target, p, member, np.array([0.5, 0.5]), population, "offline",
                            gamma=1.3)
    assert found.tolist() == [0.5]


def test_rmia_finds_a_planted_leak_and_nothing_without_one():
    phi, member = simulated(models=16, images=500, distance=1.5, seed=3)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    p, population = sigmoid(phi), sigmoid(np.random.default_rng(4).normal(0, 1, (16, 200)))

    def auc(who):
        return pooled_auc(likelihood.each_in_turn(16, who, lambda k, rest: likelihood.rmia(
            p[k], p[rest], who[rest], population[k], population[rest])))

    assert auc(member) > 0.7
    assert abs(auc(np.random.default_rng(5).permuted(member, axis=0)) - 0.5) < 0.03


def test_scaled_confidence_by_hand_and_where_it_saturates():
    z = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    found = likelihood.scaled_confidence(z, torch.tensor([0]))
    assert found.item() == pytest.approx(math.log(0.7 / 0.3), abs=1e-12)
    sure = likelihood.scaled_confidence(torch.tensor([[40.0, 0, 0]]), torch.tensor([0]))
    assert sure.item() == pytest.approx(40 - math.log(2), abs=1e-9)  # p rounds to 1, phi does not
    neighbour = likelihood.neighbour_confidence(z, torch.tensor([0]))
    assert neighbour.item() == pytest.approx(math.log(2), abs=1e-12)  # .2 against .1
    stacked = likelihood.scaled_confidence(torch.stack([z, z + 5]), torch.tensor([0]))
    assert stacked.shape == (2, 1) and stacked[0] == pytest.approx(stacked[1])


def test_a_masked_class_gives_the_same_score_for_every_image():
    z = torch.randn(6, 40, 4, dtype=torch.float64)
    z[..., 1] = -torch.inf
    labels = torch.ones(40, dtype=torch.long)
    phi = likelihood.scaled_confidence(z, labels).numpy()
    member = np.arange(6)[:, None] % 2 == np.arange(40)[None] % 2
    for inside, outside in in_turn(phi, member):
        assert roc.delong(inside, outside)[0] == 0.5
    assert torch.isfinite(likelihood.neighbour_confidence(z, labels)).all()


def test_too_few_shadows_are_refused_in_one_line():
    with pytest.raises(UserError, match="only 0 shadow models"):
        likelihood.lira(np.zeros(2), np.zeros((3, 2)), np.zeros((3, 2), bool))
    with pytest.raises(UserError, match="online"):
        likelihood.lira(np.zeros(2), np.zeros((3, 2)), np.zeros((3, 2), bool), mode="both")


# --- the statistics and the literature's attacks -------------------------------------------------


def test_intervals():
    mean, low, high = roc.interval(np.full(8, 0.6))
    assert (mean, low, high) == pytest.approx((0.6, 0.6, 0.6))
    assert math.isnan(roc.interval([0.6])[1])
    values = np.random.default_rng(0).normal(0, 1, 400)
    mean, low, high = roc.interval(values)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_true_positive_rates_known_and_refused():
    """d = 1: .0924 at 1 %; and no number where fewer than ten negatives decide."""
    rng = np.random.default_rng(0)
    members, others = rng.normal(1, 1, 100_000), rng.normal(0, 1, 100_000)
    assert roc.tpr_at(members, others, 0.01) == pytest.approx(0.0924, abs=0.006)
    assert roc.tpr_at(members, others, 0.001) == pytest.approx(0.0183, abs=0.004)
    assert math.isnan(roc.tpr_at(members, others[:500], 0.01))


def test_thresholds_are_judged_on_the_other_half():
    rng = np.random.default_rng(0)
    member = np.arange(4000) % 2 == 0
    assert membership.threshold_accuracy(member * 1.0, member) == 1.0
    noise = rng.normal(size=4000)
    assert abs(membership.threshold_accuracy(noise, member) - 0.5) < 0.04
    # classes whose scores lie apart: one threshold for all tells little, one each tells all
    group = np.arange(4000) % 4 // 2
    scores = member + 10.0 * group
    assert membership.threshold_accuracy(scores, member) < 0.8
    assert membership.threshold_accuracy(scores, member, group) == 1.0


def gaussian_logits(n, shift, seed):
    z = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    z[:, 0] += shift
    return z, torch.zeros(n, dtype=torch.long)


@pytest.mark.parametrize("feature", membership.FEATURES)
def test_efficacy_says_class_absence_and_not_forgetting(feature):
    """Images of a class that is masked are called non-members, though nothing was forgotten."""
    shown, hidden = gaussian_logits(400, 5, 0), gaussian_logits(400, 1, 1)
    known = gaussian_logits(200, 5, 2)
    masked = known[0].clone()
    masked[:, 0] = -20.0
    assert membership.efficacy(feature, shown, hidden, known) < 0.4
    assert membership.efficacy(feature, shown, hidden, (masked, known[1])) > (
        0.5 if feature != "entropy" else -1)  # entropy does not look at the true class


def test_entropy_regression_counts_members():
    shown, hidden = gaussian_logits(400, 6, 0), gaussian_logits(400, 0, 1)
    assert membership.entropy_regression(shown, hidden, gaussian_logits(200, 6, 2)) > 0.9
    assert membership.entropy_regression(shown, hidden, gaussian_logits(200, 0, 3)) < 0.3


def test_two_models_alike_cannot_be_told_apart_and_a_mask_can():
    z, _ = gaussian_logits(300, 2, 0)
    noise = torch.randn(300, 4, generator=torch.Generator().manual_seed(9)) * 0.3

    def auc(*asked, **among):
        return roc.delong(*membership.told_apart(*asked, **among))[0]

    alike = auc(z + noise, z + noise.flip(0))
    masked = z.clone()
    masked[:, 0] = -torch.inf
    assert abs(alike - 0.5) < 0.1
    assert auc(z, masked) > 0.99
    assert abs(auc(z, masked, classes=(1, 2, 3)) - 0.5) < 0.1


def test_the_neighbour_attack_sees_what_a_mask_leaves():
    labels = torch.zeros(400, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    inside, outside = (torch.randn(400, 4, generator=generator) for _ in range(2))
    inside[:, 1] += 2  # seen images say it with another class's logit
    for z in (inside, outside):
        z[:, 0] = -torch.inf
    assert membership.attack("confidence", inside, labels, outside, labels).auc == 0.5
    assert membership.attack("neighbour", inside, labels, outside, labels).auc > 0.85


# --- what an edit does to attacks ----------------------------------------------------------------


def halves(models: int, images: int, seed: int = 0) -> np.ndarray:
    """Pairs of models, each of which has seen what the other has not."""
    first = np.random.default_rng(seed).random((models // 2, images)) < 0.5
    return np.stack([first, ~first], 1).reshape(models, images)


def test_pairs_of_opposites_tell_nothing_where_there_is_nothing():
    """With the opposite among the shadows the side of the target has one model fewer, and scores
    lean to the other: here, 16 models and nine numbers an image, to an AUC of about .47."""
    phi = np.random.default_rng(0).normal(size=(16, 1000, 9))
    member = halves(16, 1000)

    def score(k, rest):
        return likelihood.lira_vector(phi[k], phi[rest], member[rest])

    ours = pooled_auc(likelihood.each_in_turn(16, member, score))
    assert abs(ours - 0.5) < 0.012
    leaning = []
    for k in range(16):
        made = score(k, np.arange(16) != k)
        leaning.append(roc.delong(made[member[k]], made[~member[k]])[0])
    assert np.mean(leaning) < 0.485


def test_rmia_still_sees_what_an_edit_makes_small():
    """Probabilities of a forgotten class are near 0 in and out, yet members' are larger: held-out
    images must be measured by what they get, not by a member's near 1."""
    member = halves(16, 400)
    rng = np.random.default_rng(1)
    p = 1 / (1 + np.exp(7 - rng.normal(size=(16, 400)) - 1.5 * member))
    population = 1 / (1 + np.exp(7 - rng.normal(size=(16, 200))))
    results = likelihood.each_in_turn(16, member, lambda k, rest: likelihood.rmia(
        p[k], p[rest], member[rest], population[k], population[rest]))
    assert pooled_auc(results) > 0.65
    assert np.mean([(np.concatenate(r) == 1).mean() for r in results]) < 0.2


def test_what_all_images_of_a_model_share_is_taken_off():
    member = halves(16, 400)
    rng = np.random.default_rng(2)
    phi = rng.normal(size=(16, 400)) + 1.0 * member
    shifted = phi + 5 * rng.normal(size=(16, 1))  # an edit that moved each model's images its way
    aucs = {name: pooled_auc(in_turn(likelihood.centred(torch.tensor(values)).numpy()
                                     if centre else values, member))
            for name, values, centre in (("as it was", phi, False), ("shifted", shifted, False),
                                         ("centred", shifted, True))}
    assert aucs["shifted"] < aucs["as it was"] - 0.1
    assert aucs["centred"] == pytest.approx(aucs["as it was"], abs=0.02)
