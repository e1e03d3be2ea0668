"""Bugs to plant, one at a time, and where the suite should find them: see `run.py`.

Each is what a tired engineer could write, changes what is computed, and is one place in
one file: `old` is there exactly once, and no two are of the same line. Tests are those
most likely to find it, as pytest takes them, below tests/.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent


class Mutation(NamedTuple):
    """One bug."""

    name: str
    """What is wrong, in words."""
    file: str
    """Below jaxrl_par/."""
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def part(self) -> str:
        """The part of the package, as in `test_layers`."""
        return self.file.partition("/")[0].removesuffix(".py")


def mutated(mutation: Mutation, text: str) -> str:
    """The text of the file with the bug in it."""
    return text.replace(mutation.old, mutation.new)


def problems(mutations: Iterable[Mutation], root: Path = ROOT) -> list[str]:
    """Why the list does not fit the package; a line for each."""
    found, names = [], set()
    by_file: dict[str, list[Mutation]] = {}
    for mutation in mutations:
        if mutation.name in names:
            found.append(f"{mutation.name!r}: two mutations have this name")
        names.add(mutation.name)
        by_file.setdefault(mutation.file, []).append(mutation)
        found += [
            f"{mutation.name!r}: there is no tests/{test}"
            for test in mutation.tests
            if not _is_test(root / "tests", test)
        ]
    for file, of_file in by_file.items():
        path = root / "jaxrl_par" / file
        text = path.read_text() if path.is_file() else ""
        found += [f"{file}, {line}" for line in _problems(of_file, text)]
    return found


def _problems(mutations: list[Mutation], text: str) -> Iterator[str]:
    """What is wrong with those of one file."""
    taken: set[int] = set()
    fit = []
    for mutation in mutations:
        if (count := text.count(mutation.old)) != 1:
            yield f"{mutation.name!r}: the old text is there {count} times, not once"
            continue
        first = text[: text.index(mutation.old)].count("\n")
        lines = {first + i for i in range(mutation.old.count("\n") + 1)}
        if lines & taken:
            yield f"{mutation.name!r}: another mutation is of the same line"
            continue
        taken |= lines
        fit.append(mutation)
    together = reduce(lambda text, mutation: mutated(mutation, text), fit, text)
    if _is_python(together):  # one parse for all, as a rule
        return
    for mutation in fit:
        if not _is_python(mutated(mutation, text)):
            yield f"{mutation.name!r}: the new text is no Python"


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _is_test(folder: Path, test: str) -> bool:
    file, _, name = test.partition("::")
    path = folder / file
    return path.is_file() and bool(
        re.search(rf"^(def|class) {name}\b", path.read_text(), re.MULTILINE)
    )


def _m(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, file, old, new, tests)


_RETURNS = (
    _m(
        "n-step returns sum one reward more",
        "returns.py",
        "jax.lax.fori_loop(0, n, one_more",
        "jax.lax.fori_loop(0, n + 1, one_more",
        "test_returns.py::test_n_step_follows_its_definition",
    ),
    _m(
        "gae counts the row after an episode",
        "returns.py",
        "return _decayed_sum(deltas, lambda_ * discounts, last)",
        "return _decayed_sum(deltas, lambda_ * discounts, last & False)",
        "test_returns.py::test_rows_that_are_last_have_advantage_zero",
    ),
    _m(
        "the advantage of V-trace is that of lambda 1",
        "returns.py",
        "following = (1.0 - lambda_) * values[1:] + lambda_ * next_targets",
        "following = next_targets",
        "test_returns.py::test_vtrace_on_policy_is_gae",
    ),
    _m(
        "lambda is cut by the bar of c",
        "returns.py",
        "errors = _decayed_sum(deltas, lambda_ * cs * discounts, last)",
        "decay = jnp.minimum(max_c, lambda_ * rhos) * discounts\n"
        "    errors = _decayed_sum(deltas, decay, last)",
        "test_returns.py::test_vtrace_is_the_sum_of_the_paper",
    ),
    _m(
        "the discount of a last row lets the next episode through",
        "returns.py",
        "x, decay = (jnp.where(last, 0.0, rows) for rows in _precise(x, decay))",
        "x = jnp.where(last, 0.0, x)",
        "test_returns.py::"
        "test_rows_that_are_last_let_nothing_through_whatever_their_discount",
    ),
    _m(
        "the policy's bar is by default that of c",
        "returns.py",
        "policy_bar = max_rho if max_policy_rho is None",
        "policy_bar = max_c if max_policy_rho is None",
        "test_returns.py::test_the_policys_bar_is_that_of_the_targets_by_default",
    ),
)

_LOSSES = (
    _m(
        "a mean over rows divides by those that count",
        "losses.py",
        'return total if reduction == "sum" else total / x.size',
        'return total if reduction == "sum" else total / jnp.sum(~last)',
        "test_losses.py::test_rows_that_are_last_weigh_nothing_but_are_counted",
        "test_losses.py::test_the_mean_over_devices_is_that_of_the_joint_batch",
    ),
    _m(
        "a metric sums rows that do not count",
        "losses.py",
        "return Mean(jnp.sum(jnp.where(last, 0.0, x)), count)",
        "return Mean(jnp.sum(x), count)",
        "test_losses.py::test_a_metric_is_the_mean_of_the_rows_that_count",
    ),
    _m(
        "the surrogate is the optimistic one",
        "losses.py",
        "loses = advantages < 0.0",
        "loses = advantages > 0.0",
        "test_losses.py::test_clipped_surrogate_is_the_pessimistic_gain",
    ),
    _m(
        "the smaller of two value errors counts",
        "losses.py",
        "return 0.5 * jnp.maximum(jnp.square(values - targets)",
        "return 0.5 * jnp.minimum(jnp.square(values - targets)",
        "test_losses.py::test_clipped_value_loss_is_the_larger_of_two",
    ),
)

_DISTRIBUTIONS = (
    _m(
        "the divergence of categoricals is the other way round",
        "distributions.py",
        "difference = log_probs - other._log_probs_first",
        "difference = other._log_probs_first - log_probs",
        "test_distributions.py::test_categorical_kl_follows_its_definition",
    ),
    _m(
        "the distance of means is in the wrong one's deviations",
        "distributions.py",
        "distance = (mean - other_mean) * jnp.exp(-other_log_std)",
        "distance = (mean - other_mean) * jnp.exp(-log_std)",
        "test_distributions.py::test_kl_is_the_mean_log_ratio_and_zero_to_itself",
        "test_distributions.py::test_normal_kl_of_a_moved_mean_is_a_quadratic_form",
    ),
    _m(
        "the entropy of a normal distribution misses one half",
        "distributions.py",
        "jnp.sum(_precise(self).log_std + 0.5 * (_LOG_2PI + 1.0), axis=-1)",
        "jnp.sum(_precise(self).log_std + 0.5 * _LOG_2PI, axis=-1)",
        "test_distributions.py::test_entropy_is_the_mean_of_minus_log_prob",
    ),
    _m(
        "the density of a squashed action forgets the width of its bounds",
        "distributions.py",
        "log_slope += jnp.log(_precise(self).half_width)",
        "pass",
        "test_distributions.py::"
        "test_squashed_density_is_the_derivative_of_its_cdf_and_integrates_to_one",
    ),
    _m(
        "the entropy of a squashed policy falls with the slope",
        "distributions.py",
        "return self._normal.entropy() + jnp.sum(log_slope, axis=-1)",
        "return self._normal.entropy() - jnp.sum(log_slope, axis=-1)",
        "test_distributions.py::test_squashed_entropy_is_exact_for_small_deviations",
    ),
    _m(
        "a sample is of the weights without their normaliser",
        "distributions.py",
        "draw = jax.random.uniform(key, total.shape) * total",
        "draw = jax.random.uniform(key, total.shape)",
        "test_distributions.py::test_categorical_samples_have_the_right_frequencies",
    ),
)

_ALGORITHMS = (
    _m(
        "a2c: entropy is a cost",
        "algorithms/a2c.py",
        "row_losses -= config.entropy_cost * entropies",
        "+ config.entropy_cost * entropies,",
        "algorithms/test_a2c.py::test_the_loss_follows_the_paper",
    ),
    _m(
        "a2c: the gradient flows into targets and advantages",
        "algorithms/a2c.py",
        '"values": jax.lax.stop_gradient(values),',
        '"values": values,',
        "algorithms/test_impala.py::test_without_lag_it_is_a2c",
    ),
    _m(
        "impala: the gradient flows into the ratios",
        "algorithms/impala.py",
        "jax.lax.stop_gradient(log_probs) - trajectory.extras",
        "log_probs - trajectory.extras",
        "algorithms/test_impala.py::test_targets_and_weights_carry_no_gradient",
    ),
    _m(
        "impala: one step is cut at the bar of the values",
        "algorithms/impala.py",
        "weights = returns.ratios_up_to(config.max_policy_rho, log_ratios)",
        "weights = returns.ratios_up_to(config.max_rho, log_ratios)",
        "algorithms/test_impala.py::test_a_single_row_is_weighed_as_its_correction_says",
    ),
    _m(
        "impala: what acted is pulled to the policy",
        "algorithms/impala.py",
        "config.behaviour_cost * acted.kl(policy)",
        "config.behaviour_cost * policy.kl(acted)",
        "algorithms/test_distilled.py::test_the_learner_is_pulled_to_what_acted",
    ),
    _m(
        "impala: an ignored action's ratio counts",
        "algorithms/impala.py",
        "log_ratios = jnp.where(last, 0.0, log_ratios)",
        "log_ratios = jnp.asarray(log_ratios)",
        "algorithms/test_impala.py::test_an_ignored_action_cannot_spoil_the_loss",
    ),
    _m(
        "ppo: each device normalises by its own advantages",
        "algorithms/ppo.py",
        "advantages = standardized(advantages, ~last, axis)",
        "advantages = standardized(advantages, ~last, Axis())",
        "algorithms/test_ppo.py::"
        "test_advantages_are_normalised_over_all_devices_and_targets_are_not",
    ),
    _m(
        "ppo: a value is clipped around that of the next row",
        "algorithms/ppo.py",
        "value=values[:-1],",
        "value=values[1:],",
        "algorithms/test_ppo.py::"
        "test_advantages_are_normalised_over_all_devices_and_targets_are_not",
    ),
    _m(
        "ppo: targets are of the advantages that were normalised",
        "algorithms/ppo.py",
        "target=targets,",
        "target=advantages + values[:-1],",
        "algorithms/test_ppo.py::"
        "test_advantages_are_normalised_over_all_devices_and_targets_are_not",
    ),
    _m(
        "ppo: gamma is ignored",
        "algorithms/ppo.py",
        "discounts=config.gamma * trajectory.discount,",
        "discounts=trajectory.discount,",
        "algorithms/test_ppo.py::test_targets_of_two_rows_are_these",
    ),
    _m(
        "ppo: the entropy bonus is a fine",
        "algorithms/ppo.py",
        "- config.entropy_cost * entropies,",
        "+ config.entropy_cost * entropies,",
        "algorithms/test_ppo.py::"
        "test_the_loss_and_its_gradient_are_those_of_the_equations",
    ),
    _m(
        "ppo: old values and targets are swapped",
        "algorithms/ppo.py",
        "values, rows.value, rows.target, config.clip",
        "values, rows.target, rows.value, config.clip",
        "algorithms/test_ppo.py::"
        "test_the_loss_and_its_gradient_are_those_of_the_equations",
    ),
    _m(
        "ppo: values are clipped although that is off",
        "algorithms/ppo.py",
        "if config.clip_values:",
        "if config.clip_values or True:",
        "algorithms/test_ppo.py::"
        "test_the_loss_and_its_gradient_are_those_of_the_equations",
    ),
    _m(
        "reinforce: the entropy bonus is a fine",
        "algorithms/reinforce.py",
        "total = policy_losses - config.entropy_cost * entropies",
        "total = policy_losses + config.entropy_cost * entropies",
        "algorithms/test_reinforce.py::test_an_entropy_bonus_pulls_towards_more_of_it",
    ),
    _m(
        "reinforce: the policy's gradient flows into the baseline",
        "algorithms/reinforce.py",
        "baseline = jax.lax.stop_gradient(values)",
        "baseline = values",
        "algorithms/test_reinforce.py::"
        "test_a_learned_baseline_regresses_on_the_return_and_is_no_part_of_the_policy",
    ),
    _m(
        "v-mpo: the better half is without the median",
        "algorithms/vmpo.py",
        "top = ~last & (advantages >= median)",
        "top = ~last & (advantages > median)",
        "algorithms/test_vmpo.py::test_the_numbers_of_four_advantages",
        "algorithms/test_vmpo.py::"
        "test_the_half_is_of_rows_that_are_not_last_and_holds_all_ties",
    ),
    _m(
        "v-mpo: the temperature goes the wrong way",
        "algorithms/vmpo.py",
        'duals.eta * (config.epsilon_eta - constants["divergence"])',
        'duals.eta * (constants["divergence"] - config.epsilon_eta)',
        "algorithms/test_vmpo.py::"
        "test_multipliers_grow_where_a_bound_is_broken_and_fall_where_not",
    ),
    _m(
        "v-mpo: the trust region holds nothing back",
        "algorithms/vmpo.py",
        "alpha * (limit - stop(part)) + stop(alpha) * part",
        "alpha * (limit - part) + stop(alpha) * part",
        "algorithms/test_vmpo.py::test_parameters_feel_only_what_the_paper_lets_them",
    ),
    _m(
        "v-mpo: means and covariances change places",
        "algorithms/vmpo.py",
        "return old.kl(moved), old.kl(reshaped)",
        "return old.kl(reshaped), old.kl(moved)",
        "algorithms/test_vmpo.py::"
        "test_divergences_of_normal_distributions_come_in_two_parts",
    ),
    _m(
        "reinforce: one is among the others of one's baseline",
        "algorithms/reinforce.py",
        "others = jnp.sum(weight, axis=1, keepdims=True) - weight",
        "others = jnp.sum(weight, axis=1, keepdims=True)",
        "algorithms/test_reinforce.py::"
        "test_with_two_workers_each_is_the_others_baseline",
    ),
    _m(
        "reinforce: the baseline is a mean of devices' means",
        "algorithms/reinforce.py",
        "axis.mean(jnp.sum(to_go)) / jnp",
        "axis.mean(jnp.sum(to_go) / jnp.sum(weight)) * count / jnp",
        "algorithms/test_reinforce.py::test_the_mean_is_over_the_rows_of_all_devices",
    ),
    _m(
        "DQN values its action by the online network",
        "algorithms/dqn/loss.py",
        "best(outputs.target_ahead, outputs.choosing_ahead, kind)",
        "best(outputs.choosing_ahead, outputs.choosing_ahead, kind)",
        "algorithms/test_dqn.py::test_double_dqn_chooses_by_one_network_and_values_by_the_other",
    ),
    _m(
        "first priorities bootstrap from the row itself",
        "algorithms/dqn/acted.py",
        "at_rows(bests, ahead.index)",
        "at_rows(bests, ahead.index - 1)",
        "algorithms/test_dqn.py::"
        "test_who_acts_records_the_priorities_that_learning_would_give",
    ),
    _m(
        "priorities of DQN are weighted",
        "algorithms/dqn/loss.py",
        "losses.of_sequences(learned.priority, last, config.eta)",
        "losses.of_sequences(weight * learned.priority, last, config.eta)",
        "algorithms/test_dqn.py::test_importance_weights_are_of_windows_and_the_mean_is_over_their_number",
    ),
    _m(
        "a gradient flows into the burn-in",
        "algorithms/dqn/sequences.py",
        "jax.lax.stop_gradient(after)",
        "after",
        "algorithms/test_dqn.py::test_no_gradient_flows_into_what_is_burned_in",
    ),
    _m(
        "C51: what is beyond the atoms is lost",
        "algorithms/dqn/values.py",
        "located = jnp.clip(located, atoms[0], atoms[-1])[..., None, :]",
        "located = located[..., None, :]",
        "algorithms/test_dqn_values.py::"
        "test_mass_is_shared_by_the_nearest_atoms_and_none_is_lost",
    ),
    _m(
        "quantiles: tau is along the targets",
        "algorithms/dqn/values.py",
        "_trailing(tau[:, None], errors) - (errors < 0.0)",
        "_trailing(tau, errors) - (errors < 0.0)",
        "algorithms/test_dqn_values.py::test_quantiles_weigh_all_differences",
    ),
    _m(
        "C51: what is acted by is the mean in the space of h",
        "algorithms/dqn/values.py",
        "jax.nn.softmax(outputs) * _returns(located, rescale)",
        "jax.nn.softmax(outputs) * located",
        "algorithms/test_dqn_values.py::test_distributions_are_learned_in_the_space_of_h"
        "_and_acted_by_their_returns",
    ),
    _m(
        "R2D2: what has no rows to burn in is burned in all the same",
        "algorithms/dqn/sequences.py",
        "where = padded.reshape(",
        "where = (padded & False).reshape(",
        "algorithms/test_dqn_memory.py::test_nothing_is_stale_before_an_update",
    ),
    _m(
        "R2D2: a zero start reads what was stored",
        "algorithms/dqn/loss.py",
        "memory = network.initial_carry(batch.num_lanes)",
        "memory = batch.carry.memory",
        "algorithms/test_dqn_memory.py::test_a_zero_start_reads_no_memory_of_acting",
    ),
    _m(
        "Delta Q is of the step before",
        "algorithms/dqn/sequences.py",
        "memory, step = jax.tree.map(lambda x, row=row: x[row], (acted, steps))",
        "memory, step = jax.tree.map(lambda x, row=row: x[row - 1], (acted, steps))",
        "algorithms/test_dqn_memory.py::test_nothing_is_stale_before_an_update",
    ),
    _m(
        "sarsa: where an episode ends the ignored action is taken",
        "algorithms/q_learning.py",
        "mean.at[:-1].set(jnp.where(last[:-1], mean[:-1], taken))",
        "mean.at[:-1].set(taken)",
        "algorithms/test_q_learning.py::test_targets_follow_the_paper",
        "algorithms/test_q_learning.py::"
        "test_sarsa_takes_on_average_what_the_next_action_would_give",
    ),
    _m(
        "q: targets are of the network that learns",
        "algorithms/q_learning.py",
        "target_q_values, _ = network.unroll(target, memory, steps)",
        "target_q_values, _ = network.unroll(online, memory, steps)",
        "algorithms/test_q_learning.py::"
        "test_the_gradient_is_that_of_a_regression_on_fixed_numbers",
    ),
    _m(
        "q: the target is a copy from before the update",
        "algorithms/q_learning.py",
        "renewed(online, state.target, state.phase, config.target_period)",
        "renewed(state.online, state.target, state.phase, config.target_period)",
        "algorithms/test_q_learning.py::"
        "test_the_target_is_copied_every_so_many_updates",
    ),
    _m(
        "q: one-step targets reach as far as n-step ones",
        "algorithms/q_learning.py",
        'lambda_=1.0 if config.method == "n_step" else 0.0',
        'lambda_=1.0 if config.method != "sarsa" else 0.0',
        "algorithms/test_q_learning.py::test_targets_follow_the_paper",
    ),
    _m(
        "distilled: the teacher is to agree with its student",
        "algorithms/distilled.py",
        "divergences = policy.kl(batch.policy)",
        "divergences = batch.policy.kl(policy)",
        "algorithms/test_distilled.py::test_the_policy_term_is_that_of_the_fact_sheet",
    ),
    _m(
        "normalize: the row between two unrolls counts twice",
        "algorithms/normalize.py",
        "seen = trajectory.rows.obs",
        "seen = trajectory.steps.obs",
        "algorithms/test_normalize.py::"
        "test_what_was_acted_is_learned_with_the_statistics_that_acted",
    ),
    _m(
        "normalize: what is prepared is not normalised",
        "algorithms/normalize.py",
        "agent.prepare(state.inner, shown(state, trajectory), axis)",
        "agent.prepare(state.inner, trajectory, axis)",
        "algorithms/test_normalize.py::"
        "test_what_was_acted_is_learned_with_the_statistics_that_acted",
    ),
    _m(
        "tabular: workers at one entry take a whole step each",
        "algorithms/tabular/tables.py",
        "step_sizes(rule, table.visits[index]) / counts[index]",
        "step_sizes(rule, table.visits[index])",
        "algorithms/tabular/test_tables.py::"
        "test_workers_at_the_same_entry_share_a_step",
    ),
    _m(
        "tabular: who never was there counts in the average",
        "algorithms/tabular/parallel.py",
        "weights = jnp.where(totals == 0, 1, tables.visits)",
        "weights = jnp.maximum(tables.visits, 1)",
        "algorithms/tabular/test_parallel.py::"
        "test_what_one_worker_did_not_see_does_not_count",
    ),
    _m(
        "tabular: sarsa bootstraps from the action that it took",
        "algorithms/tabular/control.py",
        "table = control_update(now.table, transitions, actions, config)",
        "table = control_update(now.table, transitions, now.action, config)",
        "algorithms/tabular/test_control.py::"
        "test_sarsa_learns_the_values_of_the_policy_it_has_become",
    ),
    _m(
        "tabular: rewards are estimated as means over all successors",
        "algorithms/tabular/model.py",
        "sums / jnp.maximum(counts, 1),",
        "sums / jnp.maximum(of_pairs, 1)[:, :, None],",
        "algorithms/tabular/test_model.py::test_frequencies_are_counted",
    ),
)

_PARTS = (
    _m(
        "the log-probability of the likeliest action is recorded",
        "agents.py",
        'extras = {"log_prob": policy.log_prob(action)}',
        'extras = {"log_prob": policy.log_prob(policy.mode())}',
        "test_agents.py::test_acting_leaves_the_probability_of_what_was_sampled",
    ),
    _m(
        "the target is renewed one update early",
        "targets.py",
        "due = phase + 1 >= period",
        "due = phase == 0",
        "test_targets.py::test_a_target_is_that_of_every_so_many_updates",
    ),
    _m(
        "a target that follows keeps the share that it should give",
        "targets.py",
        "y + rate * (x - y)",
        "x + rate * (y - x)",
        "test_targets.py::test_a_target_that_follows_goes_its_share_of_the_way",
    ),
    _m(
        "actions differ by their lower bounds alone",
        "compatible.py",
        "pairs = (a.low, b.low), (a.high, b.high)",
        "pairs = ((a.low, b.low),)",
        "topologies/test_specs.py::test_specs_of_any_number_of_environments_meet",
    ),
    _m(
        "equal numbers deviate by what their mean is rounded",
        "statistics.py",
        "means = jax.tree.map(jnp.add, means, offsets)",
        "means = means",
        "test_statistics.py::"
        "test_equal_numbers_do_not_deviate_though_their_mean_is_rounded",
    ),
    _m(
        "gymnax computes in 64 bits where a user does",
        "envs/raw.py",
        ", jax.enable_x64(False):",
        ":",
        "test_switches.py::test_what_gymnax_has_traces_in_32_bits",
    ),
    _m(
        "truth values are divided by their number",
        "exploration.py",
        "weights = chosen.astype(jnp.float32)",
        "weights = chosen",
        "test_switches.py::test_functions_of_arrays_trace_without_promotion",
    ),
    _m(
        "a word behind an option without a value belongs to it",
        "cli/config.py",
        "for option, hint, _ in options(config) if hint is not bool}",
        "for option, hint, _ in options(config)}",
        "cli/test_config.py::test_words_stand_anywhere_among_options",
    ),
    _m(
        "an action that does not exist is certain",
        "distributions.py",
        "return jnp.where(exists, found, -jnp.inf)",
        "return found",
        "test_distributions.py::test_an_action_that_does_not_exist_has_no_probability",
    ),
    _m(
        "a ratio without a bar overflows",
        "returns.py",
        "highest = jnp.minimum(bar, _LARGEST_RATIO)",
        "highest = jnp.asarray(bar)",
        "test_returns.py::test_without_bars_a_ratio_that_overflows_is_a_large_number",
    ),
    _m(
        "a mean over no row is divided by zero",
        "algorithms/reinforce.py",
        "tiny = jnp.finfo(count.dtype).tiny",
        "tiny = 0.0",
        "algorithms/test_reinforce.py::"
        "test_rows_that_are_all_last_have_a_baseline_of_zero",
    ),
    _m(
        "keys that JSON would make one are merged",
        "training/comparison.py",
        'refuse_any(same_text(value, f"keys of {name}"))',
        "pass",
        "cli/test_config.py::test_keys_that_json_would_make_one_are_refused",
    ),
    _m(
        "help of an older package is printed",
        "kept.py",
        "return _digest(state + b",
        "return _digest(b",
        "test_kept.py::test_a_change_of_what_made_it_makes_it_anew",
    ),
    _m(
        "help is kept for one width of the terminal",
        "kept.py",
        "path = _path(str(shutil.get_terminal_size((0, 0)).columns), *about)",
        "path = _path(*about)",
        "test_kept.py::test_a_change_of_what_made_it_makes_it_anew",
    ),
    _m(
        "Python flushes once more to a reader that is gone",
        "pipes.py",
        "os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())",
        "pass",
        "test_pipes.py::test_who_cannot_print_ends_in_a_sentence_at_most",
    ),
    _m(
        "an ignored signal is heard",
        "exit_codes.py",
        "always = number in (signal.SIGTERM, signal.SIGINT)",
        "always = True",
        "test_exit_codes.py::test_what_is_ignored_stays_so_and_all_handlers_come_back",
    ),
    _m(
        "merged variances weigh the distance of means too much",
        "statistics.py",
        "+ share * (1.0 - share) * jnp.square(new_mean - old_mean)",
        "+ share * jnp.square(new_mean - old_mean)",
        "test_statistics.py::test_merged_moments_are_those_of_the_rows_of_both",
    ),
    _m(
        "moments are of a device's own rows",
        "statistics.py",
        "axis.mean((number, jax.tree.map(total, rows)))",
        "(axis.mean(number), jax.tree.map(total, rows))",
        "test_statistics.py::test_moments_are_those_of_all_rows_that_are_kept",
    ),
    _m(
        "the median is the next larger one",
        "statistics.py",
        "enough = number >= counts[:, None]",
        "enough = number > counts[:, None]",
        "test_statistics.py::test_means_over_devices_find_the_kth_largest_of_all",
    ),
    _m(
        "standardised values keep the rows that do not count",
        "statistics.py",
        "return jnp.where(keep, (x - mean) * jax.lax.rsqrt(variance + 1e-8), 0.0)",
        "return (x - mean) * jax.lax.rsqrt(variance + 1e-8)",
        "test_statistics.py::test_what_is_kept_gets_mean_0_and_deviation_1",
    ),
    _m(
        "all instances draw the same",
        "axis.py",
        "return jax.random.fold_in(key, self.index)",
        "return jax.random.fold_in(key, 0)",
        "topologies/test_sharded.py::test_no_two_devices_draw_the_same_numbers",
    ),
    _m(
        "one rotation of threefry is another",
        "draws.py",
        "(17, 29, 16, 24)",
        "(17, 29, 16, 25)",
        "test_random.py::test_threefry_gives_the_published_vectors",
    ),
    _m(
        "the words of a counter change places",
        "random.py",
        "return threefry(key, jnp.zeros_like(index), index)",
        "return threefry(key, index, jnp.zeros_like(index))",
        "test_random.py::test_draws_are_those_of_jax",
    ),
    _m(
        "a permutation shifts rows by a hash of themselves",
        "random.py",
        "row = (row + _hash(column, salt[0]) % height) % height",
        "row = (row + _hash(row, salt[0]) % height) % height",
        "test_random.py::"
        "test_a_permutation_has_every_number_once_in_an_order_of_its_key",
    ),
    _m(
        "the ladder is behind by one environment",
        "exploration.py",
        "indices[i] = np.argmax(np.round((i + 1) * due - counts, 9))",
        "indices[i] = np.argmax(np.round(i * due - counts, 9))",
        "test_exploration.py::test_a_ladder_breaks_ties_as_exact_numbers_do",
    ),
    _m(
        "what is explored is never the best action",
        "exploration.py",
        "rate * possible + (1.0 - rate) * greedy",
        "rate * possible * (greedy == 0.0) + (1.0 - rate) * greedy",
        "test_exploration.py::"
        "test_epsilon_greedy_explores_all_actions_and_breaks_ties_evenly",
    ),
    _m(
        "the epsilon of rmsprop is outside the root",
        "optimizers.py",
        "eps_in_sqrt=True",
        "eps_in_sqrt=False",
        "test_optimizers.py::test_rmsprop_has_its_epsilon_inside_the_root",
    ),
    _m(
        "adagrad begins with a sum of squares",
        "optimizers.py",
        "optax.scale_by_rss(0.0, config.epsilon)",
        "optax.scale_by_rss(0.1, config.epsilon)",
        "test_optimizers.py::test_adagrad_divides_by_the_root_of_all_squares",
    ),
    _m(
        "steps are clipped and not gradients",
        "optimizers.py",
        "optax.chain(clip, direction, rate)",
        "optax.chain(direction, rate, clip)",
        "test_optimizers.py::test_gradients_are_clipped_to_their_global_norm",
    ),
    _m(
        "annealing ends one step late",
        "optimizers.py",
        "state.fraction(total_env_steps)",
        "state.fraction(total_env_steps + 1)",
        "test_optimizers.py::test_the_learning_rate_reaches_zero_at_the_end",
    ),
    _m(
        "a trajectory has the memory of its end",
        "rollout.py",
        "rows._replace(steps=steps, carry=streams.carry)",
        "rows._replace(steps=steps, carry=after.carry)",
        "test_rollout.py::test_rows_of_counter_are_those_computed_by_hand",
    ),
    _m(
        "episodes are told one row late",
        "rollout.py",
        "_ended(episode, trajectory.steps.last[1:])",
        "_ended(episode, trajectory.steps.last[:-1])",
        "test_rollout.py::test_episodes_are_those_that_ended",
    ),
    _m(
        "a whole episode is without its last reward",
        "rollout.py",
        "running = ~over[:-1]",
        "running = ~over[1:]",
        "test_rollout.py::test_whole_episodes_are_one_of_each_environment",
    ),
    _m(
        "the memories of parts overlap",
        "rollout.py",
        "jax.lax.dynamic_slice_in_dim(x, index * num_envs, num_envs)",
        "jax.lax.dynamic_slice_in_dim(x, index, num_envs)",
        "test_rollout.py::test_each_part_has_its_share_of_the_memory",
    ),
    _m(
        "a bound is above itself",
        "errors.py",
        "bounds, gt, ",
        "bounds, lambda x, y: x >= y, ",
        "test_errors.py::test_bounds",
    ),
    _m(
        "what is no number is in range",
        "errors.py",
        "if not _is_array(bound) and not value >= bound",
        "if not _is_array(bound) and value < bound",
        "test_errors.py::test_bounds",
    ),
    _m(
        "an interval is open at its lower end",
        "errors.py",
        "ends[0] <= value <= ends[1]",
        "ends[0] < value <= ends[1]",
        "test_errors.py::test_bounds",
    ),
    _m(
        "joined trajectories have the memory of the first",
        "stream.py",
        "jax.tree.map(lambda *xs: function(0, *xs), *(x.carry for x in everyone))",
        "jax.tree.map(lambda x: function(0, x), self.carry)",
        "test_types.py::test_joined_trajectories_have_the_lanes_of_all_in_order",
    ),
    _m(
        "a box is bounded if one of its sides is",
        "specs.py",
        "np.all(np.isfinite(self.low)) and np",
        "np.all(np.isfinite(self.low)) or np",
        "test_types.py::test_a_box_is_bounded_if_every_element_is",
    ),
)

_NETWORKS = (
    _m(
        "what a mask excludes is made unlikely, and not impossible",
        "networks/heads.py",
        "return logits if allowed is None else jnp.where(allowed, logits, -jnp.inf)",
        "return logits if allowed is None else jnp.where(allowed, logits, 0.0)",
        "networks/test_masks.py::"
        "test_a_logit_below_all_others_does_not_hide_behind_a_mask",
    ),
    _m(
        "a head without anything to choose draws what it does not have",
        "networks/heads.py",
        "return jnp.where(there, jnp.where(none, 0.0, padded), -jnp.inf)",
        "return jnp.where(there | none, jnp.where(none, 0.0, padded), -jnp.inf)",
        "networks/test_masks.py::"
        "test_a_head_without_anything_to_choose_stays_within_its_own",
    ),
    _m(
        "dueling takes the mean over what is not allowed, too",
        "networks/q_values.py",
        "return total / jnp.maximum(number, 1.0)",
        "return total / values.shape[1]",
        "networks/test_masks.py::test_dueling_takes_the_mean_over_what_is_allowed",
    ),
    _m(
        "a row has an action where any of its parts has one",
        "masks.py",
        "return reduce(or_, (~x for x in _any(action_spec, allowed)))",
        "return ~reduce(or_, _any(action_spec, allowed))",
        "networks/test_masks.py::"
        "test_rows_without_an_action_are_found_for_every_kind_of_mask",
    ),
    _m(
        "combinations have their digits in the other order",
        "joint.py",
        "return [prod(sizes[i + 1 :]) for i in range(len(sizes))]",
        "return [prod(sizes[:i]) for i in range(len(sizes))]",
        "test_joint.py::test_a_combination_has_one_probability_and_forgets_nothing",
    ),
    _m(
        "a simulator's integers begin at 0",
        "specs.py",
        "return x + np.broadcast_to(np.asarray(spec.start, x.dtype), x.shape)",
        "return x",
        "test_specs_of_parts.py::test_an_environment_gets_what_its_choices_begin_with",
        "envs/host/test_masking.py::test_simulators_get_their_own_numbers",
    ),
    _m(
        "a mask without an action is refused where the episode ends, too",
        "envs/host/masking.py",
        "found = np.flatnonzero(none_allowed(self._action_spec, self._rows) & ~last)",
        "found = np.flatnonzero(none_allowed(self._action_spec, self._rows))",
        "envs/host/test_masking.py::"
        "test_masks_of_resets_and_steps_come_with_the_observation",
    ),
    _m(
        "advantages have a mean over the batch",
        "networks/q_values.py",
        "jnp.mean(values, axis=1, keepdims=True)",
        "jnp.mean(values, axis=0, keepdims=True)",
        "networks/test_q_values.py::test_states_of_a_batch_have_means_of_their_own",
    ),
    _m(
        "memory: what is no number survives the start of an episode",
        "networks/memory.py",
        "jax.tree.map(lambda x: jnp.where(first[:, None], 0.0, x), carry)",
        "jax.tree.map(lambda x: x * ~first[:, None], carry)",
        "networks/test_memory.py::test_nothing_before_a_first_step_is_remembered",
    ),
    _m(
        "gru: the reset gate leaves the candidate's bias alone",
        "networks/memory.py",
        "n = jnp.tanh(n + r * (n_h + candidate_bias[None]))",
        "n = jnp.tanh(n + r * n_h + candidate_bias[None])",
        "networks/test_memory.py::test_memory_follows_its_equations",
    ),
    _m(
        "lstm: the forget gate's bias is not raised",
        "networks/memory.py",
        "jax.nn.sigmoid(f + 1.0) * carry.cell",
        "jax.nn.sigmoid(f) * carry.cell",
        "networks/test_memory.py::test_memory_follows_its_equations",
    ),
    _m(
        "gate: the bias of gru opens it",
        "networks/gates.py",
        "jax.nn.sigmoid(z_y + z_x - b)",
        "jax.nn.sigmoid(z_y + z_x + b)",
        "networks/test_gtrxl.py::test_gates_follow_their_equations",
        "networks/test_gtrxl.py::"
        "test_gates_without_weights_give_the_numbers_of_the_paper",
    ),
    _m(
        "gate: the bias of highway closes it",
        "networks/gates.py",
        'share = jax.nn.sigmoid(self._product("w", x) + b)',
        'share = jax.nn.sigmoid(self._product("w", x) - b)',
        "networks/test_gtrxl.py::"
        "test_gates_without_weights_give_the_numbers_of_the_paper",
        "networks/test_gtrxl.py::"
        "test_gates_start_nearer_to_the_stream_with_a_larger_bias",
    ),
    _m(
        "gtrxl: the ring has one slot less than it has",
        "networks/gtrxl.py",
        "(carry.cursor + num_steps) % (most + 1)",
        "(carry.cursor + num_steps) % most",
        "networks/test_gtrxl.py::test_steps_one_by_one_equal_segments",
    ),
    _m(
        "gtrxl: an episode's start is one step too early",
        "networks/gtrxl.py",
        "start = jax.lax.cummax(jnp.where(first, time, -length[None]))",
        "start = jax.lax.cummax(jnp.where(first, time - 1, -length[None]))",
        "networks/test_gtrxl.py::test_nothing_before_a_first_step_changes_an_output",
    ),
    _m(
        "gtrxl: what attention says is not rectified",
        "networks/gtrxl.py",
        'x = self._gate("attention_gate")(x, nn.relu(y))',
        'x = self._gate("attention_gate")(x, y)',
        "networks/test_gtrxl.py::test_segments_follow_the_equations",
    ),
    _m(
        "attention: distances are off by one when acting",
        "networks/attention.py",
        "scores += rolled(position, slot + 1, axis=-1)",
        "scores += rolled(position, slot, axis=-1)",
        "networks/test_gtrxl.py::test_steps_one_by_one_equal_segments",
    ),
    _m(
        "attention: a segment sees one step less",
        "networks/attention.py",
        "return (distance >= 0) & (distance <= reach[:, :, None])",
        "return (distance >= 0) & (distance < reach[:, :, None] + (distance == 0))",
        "networks/test_gtrxl.py::test_segments_follow_the_equations",
        "networks/test_gtrxl.py::test_steps_one_by_one_equal_segments",
    ),
    _m(
        "conv: patches are read by columns",
        "networks/layers.py",
        "offsets = [(i, j) for i in range(self.window) for j in range(self.window)]",
        "offsets = [(i, j) for j in range(self.window) for i in range(self.window)]",
        "networks/test_network_layers.py::test_patch_convolution_is_a_convolution",
    ),
    _m(
        "pooling: the gradient pads even sides as odd ones",
        "networks/images.py",
        "before = x.shape[axis] % 2",
        "before = 1",
        "networks/test_images.py::test_pooling_has_the_gradient_of_jax",
    ),
    _m(
        "residual: the block adds to what was rectified",
        "networks/images.py",
        "return x + Conv(x.shape[-1], dtype=self.dtype)(nn.relu(y))",
        "return nn.relu(x) + Conv(x.shape[-1], dtype=self.dtype)(nn.relu(y))",
        "networks/test_images.py::test_networks_are_the_papers_with_jaxs_gradients",
        "networks/test_images.py::"
        "test_residual_blocks_with_a_zero_second_convolution_change_nothing",
    ),
    _m(
        "separate: the critic reads the actor's memory",
        "networks/actor_critic.py",
        'part("critic", carry=old[1])',
        'part("critic", carry=old[0])',
        "networks/test_actor_critic.py::test_actor_and_critic_remember_apart",
    ),
    _m(
        "squashed: the scale is the whole width",
        "networks/heads.py",
        "SquashedNormal(mean, log_std, low / 2 + high / 2, (high - low) / 2)",
        "SquashedNormal(mean, log_std, low / 2 + high / 2, high - low)",
        "networks/test_actor_critic.py::test_continuous_policies_start_in_the_middle",
    ),
    _m(
        "pixels are not scaled down",
        "networks/observations.py",
        "return x / (width if np.ptp(width) else width.flat[0])",
        "return x",
        "networks/test_observations.py::test_integers_are_scaled_by_their_bounds",
    ),
    _m(
        "asymmetric: the critic goes on from the actor's new memory",
        "networks/asymmetric.py",
        'critic.unroll(params["critic"], critic_carry, steps)',
        'critic.unroll(params["critic"], actor_carry, steps)',
        "networks/test_asymmetric.py",
    ),
)

_REPLAY = (
    _m(
        "the ring shrinks when it begins again",
        "replay/ring.py",
        "size = jnp.minimum(ring.size + num_items, capacity)",
        "size = jnp.minimum(ring.next + num_items, capacity)",
        "replay/test_ring.py::test_it_holds_the_newest_items",
        "replay/test_ring.py::test_every_item_is_drawn_as_often_as_every_other",
    ),
    _m(
        "slots that are still empty are drawn",
        "replay/ring.py",
        "index = jax.random.randint(key, (num_items,), 0, ring.size)",
        "last = len(jax.tree.leaves(ring.items)[0])\n"
        "    index = jax.random.randint(key, (num_items,), 0, last)",
        "replay/test_ring.py::test_every_item_is_drawn_as_often_as_every_other",
    ),
    _m(
        "the last window of an unroll is never drawn",
        "replay/buffers.py",
        "(batch_size,), 0, number)",
        "(batch_size,), 0, max(number - 1, 1))",
        "replay/test_buffers.py::test_a_batch_is_of_windows_of_unrolls",
    ),
    _m(
        "a window has the carry of the unroll",
        "replay/windows.py",
        "jnp.arange(self.each(rows)) * self.trained(rows)",
        "jnp.arange(self.each(rows)) * 0",
        "replay/test_windows.py::test_a_window_has_its_rows_and_the_carry_before_the_first",
    ),
    _m(
        "what is looked ahead to goes on behind the unroll",
        "replay/windows.py",
        "last=steps.last | over",
        "last=steps.last",
        "replay/test_windows.py::test_what_is_looked_ahead_to_ends_with_the_unroll",
    ),
    _m(
        "rows before the unroll are not marked",
        "replay/windows.py",
        "row[:, :-1] < 0",
        "row[:, :-1] < -rows",
        "replay/test_windows.py::test_a_window_has_its_rows_and_the_carry_before_the_first",
    ),
    _m(
        "an item of mass 0 is found at the end",
        "replay/sum_tree.py",
        "beyond = (end <= position) & (end < ends[-1])",
        "beyond = end <= position",
        "replay/test_sum_tree.py::test_neither_end_of_the_mass_finds_an_item_without_any",
    ),
    _m(
        "the first of several masses for an item counts",
        "replay/sum_tree.py",
        '.at[where].max(masses, mode="drop")',
        '.at[where].add(masses, mode="drop")',
        "replay/test_sum_tree.py::test_sums_are_those_of_the_masses_now",
    ),
    _m(
        "sums above items of the higher level are not made anew",
        "replay/sum_tree.py",
        "jnp.where(node > 0, node - 1, flat.size)",
        "jnp.where(node > num_nodes // _CHILDREN, node - 1, flat.size)",
        "replay/test_sum_tree.py::test_every_node_has_the_sum_of_its_children",
    ),
    _m(
        "nothing is drawn anew among very many items",
        "replay/sum_tree.py",
        "jnp.where(mass < width,",
        "jnp.where(mass < 0,",
        "replay/test_sum_tree.py::"
        "test_positions_that_float32_cannot_tell_apart_find_all_items",
    ),
    _m(
        "parts of a replay in one memory are counted as one",
        "replay/memory.py",
        "each * together <= free",
        "each <= free",
        "replay/test_memory_of_replay.py::"
        "test_what_does_not_fit_is_refused_with_the_numbers_and_what_would",
    ),
    _m(
        "a container's limit is that of its own group alone",
        "replay/memory.py",
        'path.strip("/"), *map(str, Path(path.strip("/")).parents)',
        'path.strip("/"),',
        "replay/test_memory_of_replay.py::"
        "test_the_least_of_machine_and_container_is_what_is_free",
    ),
    _m(
        "a replay that is left out of checkpoints is saved all the same",
        "training/manifests.py",
        "return isinstance(part, Unsaved)",
        "return isinstance(part, str)",
        "cli/test_replay_runs.py::"
        "test_what_is_unsaved_is_left_out_and_told_where_a_run_goes_on",
    ),
    _m(
        "alpha is left out",
        "replay/priorities.py",
        "** jnp.float32(config.alpha)",
        "** jnp.float32(1)",
        "replay/test_prioritised.py::test_probabilities_and_weights_are_the_papers",
    ),
    _m(
        "a priority reaches what has taken the place",
        "replay/prioritised.py",
        "drawn.mine & same &",
        "drawn.mine &",
        "replay/test_prioritised.py::test_no_priority_reaches_what_has_taken_its_place",
    ),
    _m(
        "weights are those of each device",
        "replay/prioritised.py",
        "masses = axis.sum(jnp.where(mine, mass_here, 0.0))",
        "masses = jnp.where(mine, mass_here, 0.0)",
        "replay/test_prioritised.py::test_draws_and_weights_on_a_mesh_are_those_of_all_shares_together",
    ),
    _m(
        "beta counts updates that were not applied",
        "replay/prioritised.py",
        "data.updates.add(jnp.int32(learned))",
        "data.updates.add(jnp.int32(1))",
        "replay/test_prioritised.py::test_beta_rises_with_updates_that_were_applied",
    ),
    _m(
        "weights are relative to a uniform draw of both, which undoes the ratio",
        "replay/mixed.py",
        "drawn.demonstrations.mass * theirs[0] / theirs[1]",
        "drawn.demonstrations.mass * ours[0] / theirs[1]",
        "replay/test_mixed.py::"
        "test_weights_undo_the_priorities_of_each_buffer_and_not_the_ratio",
    ),
    _m(
        "a demonstration's priority goes to the own window that was not taken",
        "replay/mixed.py",
        "priorities=jnp.where(chosen, nothing, priority)",
        "priorities=jnp.where(chosen, priority, priority)",
        "replay/test_mixed.py::"
        "test_priorities_go_to_the_buffer_and_the_window_that_they_are_of",
    ),
    _m(
        "ranks of demonstrations are never made anew",
        "replay/mixed.py",
        "fixed = fixed._replace(tree=sum_tree.of(masses))",
        "fixed = fixed._replace(tree=fixed.tree)",
        "replay/test_mixed.py::test_ranks_of_demonstrations_are_made_anew_too",
    ),
)

_LOOPS = (
    _m(
        "pace: inserts before it is ready are a debt",
        "loops/pace.py",
        "        if self.ready:\n            self._done[0] += 1",
        "        if True:\n            self._done[0] += 1",
        "loops/test_pace.py::test_what_is_inserted_before_it_is_ready_is_no_debt",
    ),
    _m(
        "pace: the least width forgets the common divisor",
        "loops/pace.py",
        "(insert + update - common) / insert",
        "(insert + update) / insert",
        "loops/test_pace.py::test_the_least_width_never_stops_and_one_less_does",
    ),
    _m(
        "pace: the learner trains more than it may",
        "loops/pace.py",
        "self.debt >= self._update",
        "self.debt >= 0",
        "loops/test_pace.py::test_inserts_and_updates_take_turns_as_the_ratio_says",
        "topologies/test_threads_decoupled.py",
    ),
    _m(
        "what is learned does not wait for the buffer",
        "loops/learner.py",
        "update(agent, state, batch, grad_key, axis, accepted=ready)",
        "update(agent, state, batch, grad_key, axis)",
        "loops/test_learner.py::"
        "test_no_gradient_is_accepted_before_the_buffer_is_ready",
    ),
    _m(
        "the memory that only the learner has stays as it began",
        "loops/learner.py",
        "return state, after, metrics\n\n    def start(trajectory):",
        "return state, data, metrics\n\n    def start(trajectory):",
        "loops/test_learner.py::test_a_memory_of_the_learner_reads_every_row_once",
    ),
    _m(
        "every epoch has the same order",
        "loops/updates.py",
        "keys = jax.random.split(key, num_epochs)",
        "keys = jax.numpy.stack([key] * num_epochs)",
        "loops/test_programs.py::"
        "test_each_epoch_learns_from_each_item_once_in_a_new_order",
    ),
    _m(
        "of the minibatches that were skipped one is counted",
        "loops/updates.py",
        'skipped = jnp.sum(jnp.asarray(metrics.pop("skipped")))',
        'skipped = jnp.max(jnp.asarray(metrics.pop("skipped")))',
        "loops/test_programs.py::test_only_the_minibatch_that_is_not_finite_is_skipped",
    ),
    _m(
        "JAX sums gradients over devices by itself",
        "loops/updates.py",
        "agent.grad(axis.apart(state), batch, key, axis)",
        "agent.grad(state, batch, key, axis)",
        "loops/test_programs.py::test_the_gradient_of_a_line_is_that_of_all_its_points",
    ),
    _m(
        "a sum over rows is a mean over devices",
        "loops/updates.py",
        'return axis.sum(grads) if agent.reduction == "sum" else axis.mean(grads)',
        "return axis.mean(grads)",
        "loops/test_programs.py::test_the_gradient_of_a_line_is_that_of_all_its_points",
    ),
    _m(
        "a gradient that is not finite is applied where it was accepted",
        "loops/updates.py",
        "use = finite & accepted",
        "use = finite | accepted",
        "loops/test_programs.py::"
        "test_a_reward_that_is_not_finite_skips_its_update_and_no_other",
        "loops/test_asynchronous.py::test_what_is_not_finite_is_skipped",
    ),
    _m(
        "two updates skipped in one step are two steps in a row",
        "loops/run.py",
        "jnp.where(skipped > 0, progress.skipped_in_a_row + 1, 0)",
        "jnp.where(skipped > 0, progress.skipped_in_a_row + skipped, 0)",
        "loops/test_programs.py::"
        "test_minibatches_that_are_skipped_in_one_step_are_one_step_in_a_row",
    ),
    _m(
        "steps are counted one row late",
        "stream.py",
        "jnp.sum(~self.rows.last, dtype=jnp.int32)",
        "jnp.sum(~self.steps.last[1:], dtype=jnp.int32)",
        "loops/test_programs.py::"
        "test_progress_counts_past_a_million_and_no_rows_that_are_last",
    ),
    _m(
        "one program counts no environment steps for its schedules",
        "loops/run.py",
        "learner=passed(run.learner, env_steps), ",
        "",
        "topologies/test_equality.py::"
        "test_a_learner_computes_the_same_on_every_topology_that_takes_it",
    ),
    _m(
        "a million of environment steps is less",
        "elapsed.py",
        "millions * 1e6 + units",
        "millions * 1e5 + units",
        "test_elapsed.py::test_a_fraction_is_of_all_steps_and_at_most_1",
    ),
    _m(
        "late gradients count no environment steps for schedules",
        "loops/asynchronous.py",
        "return passed(state, given.env_steps), metrics",
        "return state, metrics",
        "topologies/test_equality.py::"
        "test_a_learner_computes_the_same_on_every_topology_that_takes_it",
    ),
    _m(
        "environment steps pass with the first lesson",
        "loops/elsewhere.py",
        ".at[-1].set(env_steps)",
        ".at[0].set(env_steps)",
        "bridge/actor_learner/test_distillers.py::"
        "test_one_distiller_is_the_compiled_program_bit_for_bit",
    ),
    _m(
        "the last chunk of a budget in environment steps is whole",
        "training/loop.py",
        "return length if left is None else min(length, left)",
        "return length",
        "training/test_runner.py::test_environment_steps_can_be_the_budget",
    ),
    _m(
        "distillation: the age is one update more",
        "loops/distillation.py",
        "age = (parts.state.updates - sampled.updates)",
        "age = (parts.state.updates + 1 - sampled.updates)",
        "loops/test_distillation.py::test_a_round_is_what_its_parts_do",
    ),
    _m(
        "distillation: the teacher learns with the memory of the end",
        "loops/distillation.py",
        "batch = trajectory._replace(carry=data.memory)",
        "batch = trajectory._replace(carry=memory)",
        "loops/test_distillation.py::test_a_round_is_what_its_parts_do",
    ),
    _m(
        "chain: how a stage starts depends on its turn",
        "loops/chain.py",
        "keys = _keys(sorted(stages), key)",
        "keys = _keys(stages, key)",
        "loops/test_chain.py::"
        "test_two_learners_in_a_chain_are_each_of_them_alone_bit_for_bit",
    ),
    _m(
        "chain: others see what is learned in threads as it was before",
        "loops/chain.py",
        "now = Parts(state if lessons.shown else hidden, data)",
        "now = Parts(state, data)",
        "loops/test_chain.py::test_what_other_threads_learn_is_read_by_nobody_else",
    ),
    _m(
        "labelling: every updater polls in every step",
        "loops/labelling.py",
        "due = ((now - turns) % interval == 0) | (now == 0)",
        "due = ((now - turns) % interval >= 0) | (now == 0)",
        "loops/test_labelling.py::test_labels_are_of_copies_as_they_were_polled",
    ),
    _m(
        "chain: lessons that were skipped are not counted",
        "loops/learner.py",
        'return means | {"skipped": jnp.sum(skipped)}',
        'return means | {"skipped": jnp.float32(0)}',
        "loops/test_distillation.py::"
        "test_metrics_of_lessons_are_means_and_what_was_skipped_adds_up",
    ),
    _m(
        "a gradient just as stale as allowed is refused",
        "loops/asynchronous.py",
        "stale = staleness > config.max_staleness",
        "stale = staleness >= config.max_staleness",
        "loops/test_asynchronous.py::"
        "test_reject_discards_what_is_staler_than_the_bound",
    ),
    _m(
        "a refused loss stays out of the statistics",
        "loops/outliers.py",
        "enters = is_loss & is_finite &",
        "enters = is_loss & is_finite & ~outlying &",
        "loops/test_outliers.py::"
        "test_refused_losses_enter_so_that_a_new_level_is_accepted_after_12",
    ),
    _m(
        "a loss that is no number is refused if it is above the bound",
        "loops/outliers.py",
        "spoiled = is_loss & ~is_finite",
        "spoiled = is_loss & (loss > bound) & ~is_finite",
        "loops/test_outliers.py::"
        "test_a_loss_that_is_not_finite_is_refused_always_and_never_enters",
    ),
    _m(
        "all bundles judge by the losses of the first",
        "topologies/delayed.py",
        "losses=_put(local.losses, worker, losses),",
        "losses=_put(local.losses, worker * 0, losses),",
        "topologies/test_bundles.py::test_statistics_are_of_a_bundles_own_losses",
    ),
    _m(
        "a gradient is divided by one more than its staleness",
        "loops/asynchronous.py",
        "scale = 1.0 / jnp.maximum(staleness, 1)",
        "scale = 1.0 / (1 + staleness)",
        "loops/test_asynchronous.py::test_scale_divides_by_the_staleness",
    ),
    _m(
        "a worker acts with the parameters that learn",
        "loops/asynchronous.py",
        "learner.actor, env, learner.params(acting), streams, key, unroll_length",
        "learner.actor, env, learner.params(learning), streams, key, unroll_length",
        "loops/test_asynchronous.py::"
        "test_a_turn_acts_with_one_state_and_learns_with_another",
    ),
    _m(
        "a worker reads before its own update",
        "loops/schedules.py",
        "read[w] = turn + 1",
        "read[w] = turn",
        "loops/test_schedules.py::test_simulation_is_the_order_of_sorted_events",
    ),
    _m(
        "a resumed record keeps one update too many",
        "loops/records.py",
        "sum(map(len, lines[:first_update]))",
        "sum(map(len, lines[: first_update + 1]))",
        "loops/test_records.py::"
        "test_a_resumed_run_goes_on_after_the_updates_that_were_saved",
    ),
)

_TOPOLOGIES = (
    _m(
        "quorum: the first ready one of a list is learned from",
        "bridge/actor_learner/queue.py",
        "key=lambda x: (x.version, x.unroll, x.actor)",
        "key=lambda x: x.actor",
        "bridge/actor_learner/test_queue.py::"
        "test_actors_that_are_always_ready_are_learned_from_equally_often",
        "bridge/actor_learner/test_queue.py::test_one_at_a_time_goes_around",
    ),
    _m(
        "quorum: what is as old as the bound is dropped",
        "bridge/actor_learner/queue.py",
        "self._update - version > self._max_lag",
        "self._update - version >= self._max_lag",
        "bridge/actor_learner/test_queue.py::test_a_quorum_and_a_bound_starve_the_slow",
    ),
    _m(
        "quorum: who was dropped stays where it was",
        "bridge/actor_learner/engine.py",
        "acted = sorted([*unrolls, *dropped]",
        "acted = sorted(unrolls",
        "topologies/test_threads_quorum.py::"
        "test_who_is_too_late_is_dropped_and_counted",
    ),
    _m(
        "gossip: an average is written over what was learned meanwhile",
        "topologies/gossip/own_pace.py",
        "new = learned_meanwhile(mean, system.shared(made.state), local.read)",
        "new = mean",
        "topologies/test_gossip.py::test_an_update_that_came_meanwhile_is_kept",
    ),
    _m(
        "gossip: what a learner keeps of itself and its neighbours is less than 1",
        "topologies/gossip/together.py",
        "return moved(own, *moves), Mean(",
        "return moved([x / 3 for x in own], *moves), Mean(",
        "topologies/test_gossip.py::test_a_ring_of_two_keeps_its_mean",
    ),
    _m(
        "gossip: two learners have the same partner",
        "loops/matchings.py",
        "partner[round_, [first, second]] = second, first",
        "partner[round_, [first, second]] = second, second",
        "loops/test_matchings.py::test_each_pair_meets_in_just_one_of_the_matchings",
    ),
    _m(
        "gossip: statistics move as if they were numbers",
        "loops/peers.py",
        "sums = [_sums(x, now.mean) for x in (now, *ends)]",
        "sums = [x for x in (now, *ends)]",
        "loops/test_peers.py::test_statistics_move_as_counts_and_sums",
    ),
    _m(
        "compiled: all devices start with the same environments",
        "topologies/compiled.py",
        "own = axis.own(env_key)",
        "own = env_key",
        "topologies/test_sharded.py::test_no_two_devices_draw_the_same_numbers",
        "loops/test_programs.py::test_no_two_instances_or_steps_share_a_key",
    ),
    _m(
        "compiled: a mean over nothing is 0",
        "topologies/compiled.py",
        "nothing = np.full_like(value.total, np.nan)",
        "nothing = np.zeros_like(value.total)",
        "topologies/test_compiled.py::test_a_mean_over_nothing_is_no_number",
    ),
    _m(
        "delayed: the ring is read one version too early",
        "topologies/delayed.py",
        "(local.newest - delay) % system.slots",
        "(local.newest - delay - 1) % system.slots",
        "topologies/test_delayed.py::test_agents_follow_a_schedule_as_by_hand",
    ),
    _m(
        "delayed: a refused gradient is a version",
        "topologies/delayed.py",
        "version = local.version + 1 - refused.astype(jnp.int32)",
        "version = local.version + 1",
        "topologies/test_delayed.py::"
        "test_a_reward_that_is_not_finite_skips_its_turn_and_all_else_is_counted",
    ),
    _m(
        "population: what is no number wins",
        "topologies/population.py",
        "return int(np.nanargmax(scores))",
        "return int(np.argmax(scores))",
        "topologies/test_population.py::"
        "test_best_never_picks_a_score_that_is_no_number",
    ),
    _m(
        "population: all hyperparameters are drawn together",
        "topologies/population.py",
        "uniform(keys[name], (size,)",
        "uniform(key, (size,)",
        "topologies/test_population.py::test_random_search_draws_its_numbers_apart",
    ),
    _m(
        "threads: a bound of 0 on the lag counts as none",
        "bridge/actor_learner/asked.py",
        "max_lag = 1 if config.max_lag is None else config.max_lag",
        "max_lag = 1 if not config.max_lag else config.max_lag",
        "topologies/test_threads_distillation.py::"
        "test_in_order_a_lag_has_a_bound_that_is_1_by_default",
    ),
)

_BRIDGE = (
    _m(
        "central: a request that comes twice steps memory twice",
        "bridge/central/place.py",
        "new = [x for x in requests if not self._again(x)]",
        "new = [x for x in requests if self._again(x) in (True, False)]",
        "bridge/central/test_place.py::"
        "test_a_request_that_comes_twice_steps_memory_once",
    ),
    _m(
        "central: an environment that starts again keeps its memory",
        "bridge/central/place.py",
        "if known is None or known.place[0] != request.incarnation:",
        "if known is None:",
        "bridge/central/test_place.py::"
        "test_an_environment_that_starts_again_has_fresh_memory",
    ),
    _m(
        "central: what pads a batch is the last actor",
        "bridge/central/place.py",
        "actors = np.full(self.slots, self._num_actors, np.int32)",
        "actors = np.full(self.slots, self._num_actors - 1, np.int32)",
        "bridge/central/test_place.py",
    ),
    _m(
        "central: keys of a batch, not of each actor",
        "bridge/central/compiled.py",
        'keys = kept.keys.at[actors, rows].get(mode="clip")',
        'keys = kept.keys.at[jnp.arange(len(rows)), rows].get(mode="clip")',
        "bridge/central/test_place.py::"
        "test_keys_are_those_of_each_actor_in_local_inference",
    ),
    _m(
        "central: all rows of an unroll have the version of its last",
        "bridge/central/place.py",
        "versions = np.array(known.versions, np.int32)[:, None]",
        "versions = np.array(known.versions[-1:] * self._length, np.int32)[:, None]",
        "bridge/central/test_place.py::test_each_row_tells_the_version_that_acted",
    ),
    _m(
        "central: a call mixes versions that were asked for",
        "bridge/central/desk.py",
        "if request.version == oldest.version:",
        "if request.version is not None or oldest.version is None:",
        "bridge/central/test_desk.py::test_a_call_is_of_one_version",
    ),
    _m(
        "the alarm of an actor that never pulls looks at its oldest row",
        "bridge/actor_learner/pulls.py",
        "acted = max(item.versions)",
        "acted = min(item.versions)",
        "bridge/actor_learner/test_pulls.py",
    ),
    _m(
        "the largest lag of an unroll is that of its last row",
        "bridge/actor_learner/learner.py",
        "most = max(most, version - acted)",
        "most = version - acted",
        "topologies/test_threads_central.py::"
        "test_each_act_sees_whole_parameters_of_the_version_that_it_tells",
    ),
    _m(
        "records: a row is of the version of the row before",
        "loops/records.py",
        "return by_row[row] if by_row else self.version",
        "return by_row[max(row - 1, 0)] if by_row else self.version",
        "loops/test_records.py::test_several_versions_of_an_unroll_are_the_last_column",
    ),
    _m(
        "decoupled: of several batches only the last is added",
        "bridge/actor_learner/decoupled.py",
        "for batch in batches:",
        "for batch in batches[-1:]:",
        "topologies/test_threads_decoupled.py",
    ),
    _m(
        "what acts is a part of what the next update frees",
        "bridge/actor_learner/learner.py",
        "x.addressable_data(0) if isinstance(x, jax.Array) else x",
        "x",
        "bridge/actor_learner/test_mesh_learner.py",
    ),
    _m(
        "queue: a row may be older by one than the bound",
        "bridge/actor_learner/queue.py",
        "if update - newest > self._max_lag:",
        "if update - newest > self._max_lag + 1:",
        "bridge/actor_learner/test_queue.py::"
        "test_no_row_is_older_than_max_lag_and_nobody_is_stuck",
    ),
    _m(
        "queue: lockstep is behind by one more",
        "bridge/actor_learner/queue.py",
        "version = max(0, unroll - self._lag)",
        "version = max(0, unroll - self._lag - 1)",
        "bridge/actor_learner/test_queue.py::"
        "test_lockstep_acts_ahead_by_its_lag_and_no_further",
    ),
    _m(
        "queue: last come, first served",
        "bridge/actor_learner/queue.py",
        "return waiting[0] if waiting else None",
        "return waiting[-1] if waiting else None",
        "bridge/actor_learner/test_queue.py::"
        "test_free_acts_with_the_newest_and_learns_in_the_order_of_arrival",
    ),
    _m(
        "queue: one unroll more than there is room for",
        "bridge/actor_learner/queue.py",
        "if len(self._waiting) >= self._schedule.capacity:",
        "if len(self._waiting) > self._schedule.capacity:",
        "bridge/actor_learner/test_queue.py::"
        "test_a_full_queue_makes_its_producer_wait_and_loses_nothing",
    ),
    _m(
        "distillers: a version is out before its last lesson",
        "bridge/actor_learner/distillers.py",
        "return now.unfinished == 0",
        "return now.unfinished == min(1, len(now.metrics) - 1)",
        "bridge/actor_learner/test_distillers.py::"
        "test_every_lesson_is_learned_from_once_and_every_version_is_complete",
    ),
    _m(
        "the lag is counted after the update",
        "bridge/actor_learner/engine.py",
        "counted = learner.count(unrolls, version)",
        "counted = learner.count(unrolls, version + 1)",
        "topologies/test_threads.py::test_no_row_is_older_than_the_bound",
    ),
    _m(
        "parameters are published under the version before",
        "bridge/actor_learner/engine.py",
        'times.timed("publishing", stages.publish, version, run.learner)',
        'times.timed("publishing", stages.publish, version - 1, run.learner)',
        "topologies/test_threads.py::"
        "test_lockstep_acts_with_the_parameters_of_some_updates_before",
    ),
    _m(
        "lock: a gradient is applied to what it was computed at",
        "bridge/parameter_server/stores/lock.py",
        "done = store.applied(self._shards, current.state, push.given, staleness)",
        "done = store.applied(self._shards, push.pulled.state, push.given, staleness)",
        "bridge/parameter_server/test_stores.py::test_the_sum_of_all_pushes_is_exact",
    ),
    _m(
        "hogwild: who was killed at the door stays outside",
        "bridge/parameter_server/stores/hogwild.py",
        "if self._counted.pushes + len(self._writing - {worker}) >= self._target:",
        "if self._counted.pushes + len(self._writing) >= self._target:",
        "bridge/parameter_server/test_stores.py::"
        "test_who_was_killed_at_the_door_of_hogwild_comes_in_again",
    ),
    _m(
        "hogwild: the state is that of the pull",
        "bridge/parameter_server/stores/hogwild.py",
        "state = jax.device_put(old.state, self._place)",
        "state = push.pulled.state",
        "bridge/parameter_server/test_stores.py",
    ),
    _m(
        "hogwild: a write replaces what others wrote",
        "bridge/shared.py",
        "np.add(x, new - old, out=x, where=changed & ~untouched)",
        "np.copyto(x, new, where=changed & ~untouched)",
        "bridge/test_shared.py",
    ),
    _m(
        "hogwild: the element that counts is not reset",
        "bridge/shared.py",
        "x[-1] = 0",
        "x[-1] += 0",
        "bridge/test_shared.py",
    ),
    _m(
        "shards: a shard's norm counts its own part twice",
        "bridge/parameter_server/shards.py",
        "jnp.sqrt(sum(squares[:j]) + sum(squares[j + 1 :]))",
        "jnp.sqrt(sum(squares[:j]) + sum(squares[j:]))",
        "bridge/parameter_server/test_shards.py::"
        "test_a_part_of_a_gradient_is_as_long_as_the_whole",
    ),
    _m(
        "server: staleness is that of the first shard",
        "bridge/parameter_server/stores/server.py",
        "current.version - push.pulled.versions[index]",
        "current.version - push.pulled.versions[0]",
        "bridge/parameter_server/test_stores.py::test_others_do_not_wait_for_a_shard",
    ),
    _m(
        "server: a worker does not wait for its own push",
        "bridge/parameter_server/stores/server.py",
        "return current if min(x.pushes for x in current) >= own else None",
        "return current if max(x.pushes for x in current) >= own else None",
        "bridge/parameter_server/test_stores.py::"
        "test_who_pushed_sees_that_in_the_next_pull",
    ),
    _m(
        "store: a refused gradient is a version",
        "bridge/parameter_server/stores/store.py",
        "self.version + done.applied,",
        "self.version + 1,",
        "bridge/parameter_server/test_stores.py::"
        "test_who_is_too_stale_is_rejected_and_is_no_version",
    ),
    _m(
        "store: updates are told newest first",
        "bridge/parameter_server/stores/store.py",
        "return updates[::-1]",
        "return updates",
        "bridge/parameter_server/test_stores.py::"
        "test_updates_are_told_in_the_order_in_which_they_were_made",
    ),
    _m(
        "workers: a record is of the pushes of this process",
        "bridge/parameter_server/engine.py",
        "read = tuple(self._first + n for n in update.read)",
        "read = tuple(n for n in update.read)",
        "bridge/parameter_server/test_parameter_server_engine.py::"
        "test_several_workers_go_on_after_their_last_pushes",
    ),
    _m(
        "workers: in a row are those that were skipped first",
        "bridge/parameter_server/system.py",
        "in_a_row = skipped[::-1].index(False)",
        "in_a_row = skipped.index(False)",
        "bridge/parameter_server/test_parameter_server_engine.py::"
        "test_gradients_that_are_not_finite_are_skipped_and_counted",
    ),
    _m(
        "actor: an unroll has the memory of its end",
        "bridge/actor.py",
        "carry=jax.device_get(now.carry)",
        "carry=jax.device_get(self._carry)",
        "topologies/test_threads.py::"
        "test_lockstep_without_lag_is_the_synchronous_program",
    ),
    _m(
        "actor: the next episode is longer by one",
        "bridge/stepping.py",
        "self._lengths[ended] = 0",
        "self._lengths[ended] = 1",
        "topologies/test_threads.py::"
        "test_lockstep_without_lag_is_the_synchronous_program",
    ),
    _m(
        "environments made anew are alike for all actors",
        "bridge/factory.py",
        "fresh = jax.random.fold_in(jax.random.fold_in(self._root, _FRESH), actor)",
        "fresh = jax.random.fold_in(self._root, _FRESH)",
        "bridge/test_factory.py::"
        "test_no_two_actors_or_generations_have_the_same_environments",
    ),
    _m(
        "one restart less than allowed",
        "bridge/pool.py",
        "if self._restarts[actor.index] > self._config.restarts:",
        "if self._restarts[actor.index] >= self._config.restarts:",
        "bridge/actor_learner/test_faults.py::"
        "test_after_so_many_restarts_the_next_error_is_raised",
    ),
    _m(
        "a restart drops all that was ever acted",
        "bridge/pool.py",
        "tally.dropped_rows += actor.rows_in_progress",
        "tally.dropped_rows += actor.rows",
        "bridge/actor_learner/test_faults.py::"
        "test_a_restart_is_counted_with_the_rows_that_it_costs",
    ),
    _m(
        "patience is that of all waits together",
        "bridge/supervision.py",
        "            started = self.clock()\n            while True:",
        "            started = 0.0\n            while True:",
        "bridge/test_supervision.py::test_the_deadline_is_that_of_each_wait_not_of_all",
    ),
    _m(
        "a later failure replaces the first",
        "bridge/supervision.py",
        "if self._failure is None and not self._stopping:",
        "if not self._stopping:",
        "bridge/test_supervision.py::test_only_the_first_failure_counts",
    ),
    _m(
        "a replay repeats whatever unroll comes next",
        "bridge/replay.py",
        "if member.next_unroll != unroll:",
        "if member.next_unroll < 0:",
        "topologies/test_threads.py::test_a_record_that_does_not_fit_is_refused",
    ),
)

_ENVS = (
    _m(
        "trials: every end within one begins a trial of its own to who sees it",
        "envs/trials.py",
        "return after, TimeStep(seen, first=over, last=last), reward, discount",
        "return after, TimeStep(seen, first=over, last=ended), reward, discount",
        "envs/test_trials.py::test_values_bootstrap_through_ends_within_a_trial",
    ),
    _m(
        "trials: a task is drawn anew for each of their episodes",
        "envs/trials.py",
        "        over = now.last\n",
        "        over = now.last | (now.num_ended > 0)\n",
        "envs/test_trials.py::test_a_task_lasts_for_the_trial_and_no_longer",
    ),
    _m(
        "trials: the last action of the task before is shown",
        "envs/trials.py",
        "done = _where(over, jnp.zeros_like(done), done)",
        "done = _where(over & False, jnp.zeros_like(done), done)",
        "envs/test_trials.py::"
        "test_every_pull_shows_action_reward_and_end_though_it_ends_an_episode",
    ),
    _m(
        "trials: an end within one takes values to 0",
        "envs/trials.py",
        "discount = (~(over | last)).astype(jnp.float32)",
        "discount = (~(over | ended)).astype(jnp.float32)",
        "envs/test_trials.py::test_values_bootstrap_through_ends_within_a_trial",
    ),
    _m(
        "tasks: all lanes draw the same one",
        "envs/trials.py",
        "task = jax.vmap(tasks.draw)(jax.random.split(key, num_envs))",
        "task = jax.vmap(lambda _: tasks.draw(key))(jnp.arange(num_envs))",
        "envs/test_trials.py::"
        "test_tasks_differ_over_lanes_and_devices_and_follow_the_key",
    ),
    _m(
        "random MDPs: what pays says where it leads",
        "envs/tasks/mdps.py",
        "noise = jax.random.normal(reward_key)",
        "noise = jax.random.normal(place_key)",
        "envs/tasks/test_bandits_mdps_mazes.py::"
        "test_an_mdp_moves_and_pays_as_its_tables_say",
    ),
    _m(
        "the first step shows what ended the episode before",
        "envs/wrappers.py",
        "return jnp.where(first, jnp.zeros_like(x), x)",
        "return x",
        "envs/test_wrappers.py::"
        "test_previous_action_and_reward_are_those_of_the_row_before",
    ),
    _m(
        "the reset is a step of the episode",
        "envs/wrappers.py",
        "jnp.where(step.first, 0, env_state.episode.length + 1)",
        "jnp.where(step.first, 1, env_state.episode.length + 1)",
        "envs/test_wrappers.py::test_statistics_are_those_of_the_episode",
    ),
    _m(
        "the newest reward is discounted too",
        "envs/wrappers.py",
        "returns = gamma * env_state.returns + reward",
        "returns = gamma * (env_state.returns + reward)",
        "envs/test_wrappers.py::test_normalized_rewards_follow_their_definition",
    ),
    _m(
        "a time limit terminates",
        "envs/raw.py",
        "discount = jnp.where(over | terminated, 0.0, jnp.float32(going_on))",
        "discount = jnp.where(over | last, 0.0, jnp.float32(going_on))",
        "envs/test_gymnax.py::test_a_time_limit_does_not_terminate",
    ),
    _m(
        "environments that begin together share a start that others leave",
        "envs/resets.py",
        "rank = jnp.cumsum(begins, dtype=jnp.int32) - 1",
        "rank = jnp.arange(len(begins), dtype=jnp.int32)",
        "envs/test_resets.py::test_optimistic_starts_are_shared_as_little_as_can_be",
    ),
    _m(
        "a pool is made anew a step late",
        "envs/resets.py",
        "start = pool.starts, age == period, key",
        "start = pool.starts, age > period, key",
        "envs/test_resets.py::test_a_pool_is_made_anew_when_it_is_old",
    ),
    _m(
        "staggered first episodes count",
        "envs/base.py",
        "return last if self.counts is None else last & self.counts",
        "return last",
        "envs/test_resets.py::test_first_episodes_that_are_staggered_count_nowhere",
    ),
    _m(
        "an end at the limit is cut",
        "envs/raw.py",
        "truncated |= left <= 0",
        "truncated, terminated = left <= 0, terminated & (left > 0)",
        "envs/test_raw.py::test_an_end_at_the_limit_is_an_end",
    ),
    _m(
        "what a step changes is taken for a constant",
        "envs/constant.py",
        "through[i] and without_key[i]",
        "without_key[i]",
        "envs/test_constant.py::"
        "test_only_what_neither_a_reset_nor_a_step_changes_is_left_out",
    ),
    _m(
        "what a reset gets from outside JAX is taken for a constant",
        "envs/constant.py",
        "if equation.effects or any(",
        "if any(",
        "envs/test_constant.py::test_what_comes_from_outside_jax_is_left_in_the_state",
    ),
    _m(
        "the step from an episode to the next pays",
        "envs/raw.py",
        "reward = jnp.where(over, 0.0, jnp.asarray(reward, jnp.float32))",
        "reward = jnp.asarray(reward, jnp.float32)",
        "envs/test_gymnax.py::test_the_stream_is_what_gymnax_gives_by_hand",
    ),
    _m(
        "an action that is repeated pays for what is behind the end",
        "envs/suites/physics.py",
        "total += jnp.where(over, 0.0, after.reward)",
        "total += after.reward",
        "envs/suites/test_physics.py::"
        "test_an_action_that_is_repeated_ends_where_the_episode_does",
    ),
    _m(
        "whole episodes tell of those behind the first",
        "rollout.py",
        "ended = running & over[1:]",
        "ended = steps.last[1:]",
        "envs/test_told.py::test_whole_episodes_tell_of_the_first_of_each_environment",
    ),
    _m(
        "a simulated environment tells of lanes that do not count",
        "envs/host/pure.py",
        "numbers = [told[name][chosen][ended[chosen]] for ended, told in taken]",
        "numbers = [told[name][ended] for ended, told in taken]",
        "envs/test_told.py::test_simulated_it_tells_the_same",
    ),
    _m(
        "what an opponent wins is lost",
        "envs/suites/pgx.py",
        "return state, key, reward + state.rewards[0]",
        "return state, key, reward",
        "envs/suites/test_pgx.py",
    ),
    _m(
        "the other's value counts as one's own",
        "envs/suites/pgx.py",
        "return jnp.where(passes, -1.0, 1.0)",
        "return jnp.where(passes, 1.0, 1.0)",
        "envs/suites/test_pgx.py",
    ),
    _m(
        "a limit of Jumanji is an end",
        "envs/suites/jumanji.py",
        "copied.time_limit = _NEVER",
        "copied.time_limit += 0",
        "envs/suites/test_jumanji.py",
    ),
    _m(
        "a suite of any version will do",
        "envs/suites/table.py",
        "if not need.specifier.contains(found, prereleases=True):",
        "if not found:",
        "envs/suites/test_table.py",
    ),
    _m(
        "imaze: the wrong goal pays as no goal does",
        "envs/imaze.py",
        "jnp.where(at_goal, params.reward_wrong, params.reward_timeout)",
        "jnp.where(at_goal, params.reward_timeout, params.reward_wrong)",
        "envs/test_imaze.py::test_either_goal_and_the_deadline_pay_what_they_should",
    ),
    _m(
        "meta-fetch: what was fetched before an error pays again",
        "envs/meta_fetch.py",
        "paid = jnp.maximum(state.paid, progress)",
        "paid = progress",
        "envs/test_meta_fetch.py::"
        "test_what_paid_before_an_error_pays_no_more_but_what_follows_does",
    ),
    _m(
        "meta-fetch: only the first pass pays",
        "envs/meta_fetch.py",
        "paid=jnp.where(complete, 0, paid),",
        "paid=paid,",
        "envs/test_meta_fetch.py::test_every_pass_pays_each_object_once",
    ),
    _m(
        "host: a time limit terminates",
        "envs/host/rows.py",
        "np.where(first | terminated, 0.0, 1.0).astype(np.float32),",
        "np.where(first | last, 0.0, 1.0).astype(np.float32),",
        "envs/host/test_single.py::test_rows_are_those_of_the_stream",
    ),
    _m(
        "host: environments have the same episodes",
        "envs/host/single.py",
        "seed = rows.episode_seed(self._seed, i, episode)",
        "seed = rows.episode_seed(self._seed, 0, episode)",
        "envs/host/test_single.py::"
        "test_seeds_depend_on_seed_environment_and_episode_only",
    ),
    _m(
        "host: an action is kept one step early",
        "envs/host/single.py",
        "kept[running, length] = np.asarray(x)[running]",
        "kept[running, length - 1] = np.asarray(x)[running]",
        "envs/host/test_single.py::test_a_snapshot_is_the_episodes_in_progress",
        "envs/host/test_single.py::"
        "test_a_snapshot_brings_a_deterministic_simulator_back",
    ),
    _m(
        "host: final observations are shown where all end",
        "envs/host/gymnasium.py",
        "if ended.any():",
        "if ended.all():",
        "envs/host/test_vector.py::test_rows_are_those_of_the_stream_in_every_mode",
        "envs/host/test_vector.py::test_vector_environments_of_other_classes",
    ),
    _m(
        "host: one integer more is allowed",
        "envs/host/admission.py",
        "outside = (x < 0) | (x >= spec.num_values)",
        "outside = (x < 0) | (x > spec.num_values)",
        "envs/host/test_unrolls.py::test_a_choice_is_below_the_number_of_choices",
    ),
    _m(
        "host: an episode may start in the middle of another",
        "envs/host/unrolls.py",
        '"first", after, after & ~before, "comes',
        '"first", after, before & ~after, "comes',
        "envs/host/test_unrolls.py::"
        "test_bad_values_are_refused_with_field_environment_and_row",
    ),
    _m(
        "host: integers wrap",
        "envs/host/admission.py",
        "return (array < info.min) | (array > info.max)",
        "return np.zeros(array.shape, bool)",
        "envs/host/test_admission.py::"
        "test_an_observation_that_a_cast_would_change_is_refused",
    ),
    _m(
        "host: what is masked is seen",
        "envs/host/admission.py",
        "if np.ma.is_masked(x):",
        "if False:",
        "envs/host/test_admission.py::"
        "test_an_observation_that_a_cast_would_change_is_refused",
    ),
    _m(
        "host: integers keep the byte order of their space",
        "envs/host/spaces.py",
        'dtype = space.dtype.newbyteorder("=")',
        "dtype = space.dtype",
        "envs/host/test_admission.py::test_a_cast_that_changes_nothing_stays",
    ),
    _m(
        "errors: a config computes with parts that are wrong",
        "errors.py",
        "        if sure:\n            raise\n        return []",
        "        raise",
        "test_errors.py::test_what_computes_with_a_part_is_asked_when_that_is_right",
    ),
    _m(
        "host: a step is not copied before a reset",
        "envs/host/admission.py",
        "rows.append(np.array(part) if copy else part)",
        "rows.append(part)",
        "envs/host/test_admission.py::"
        "test_a_reset_beyond_its_mask_is_found_in_memory_that_is_reused",
    ),
    _m(
        "host: actions are sent as they are sampled",
        "envs/host/sending.py",
        "within = np.minimum(np.maximum(given, self._low), self._high)",
        "within = given",
        "envs/host/test_admission.py::"
        "test_what_is_sent_is_within_bounds_in_the_dtype_of_the_space",
    ),
    _m(
        "host: the first step shows what ended the episode before",
        "envs/host/wrappers.py",
        "return np.where(first, np.zeros_like(x), x)",
        "return x",
        "envs/host/test_host_wrappers.py::"
        "test_previous_action_and_reward_are_those_of_the_row_before",
    ),
)

_TRAINING = (
    _m(
        "pages: what a run says is taken for HTML",
        "training/pages/rendering.py",
        "autoescape=True",
        "autoescape=False",
        "training/test_pages.py::"
        "test_nothing_of_a_run_is_taken_for_html_and_nothing_is_far_away",
    ),
    _m(
        "pages: curves hang upside down",
        "training/pages/svg.py",
        "(y[1] - values)",
        "(values - y[0])",
        "training/test_pages.py::test_places_grow_to_the_right_and_up",
    ),
    _m(
        "measured: unit and meaning in the other order",
        "measured.py",
        'unit: str  # "1" for a number without one\n    meaning: str',
        "meaning: str\n    unit: str",
        "training/test_metrics.py::test_each_has_a_unit_and_a_meaning_in_one_line",
    ),
    _m(
        "exit_codes: signals that are ignored, as by nohup, are heard",
        "exit_codes.py",
        "return always or now == signal.SIG_DFL or is_ours(now)",
        "return always or now != end_at_once or is_ours(now)",
        "test_exit_codes.py::test_what_is_ignored_stays_so_and_all_handlers_come_back",
    ),
    _m(
        "checkpoints: the hash of a leaf is not compared",
        "training/manifests.py",
        'if leaf != content["leaves"][name]:',
        'if leaf["shape"] != content["leaves"][name]["shape"]:',
        "training/test_checkpoints.py::"
        "test_a_damaged_step_falls_back_to_the_one_before",
        "training/test_checkpoints.py::"
        "test_a_flipped_bit_anywhere_never_gives_other_numbers",
    ),
    _m(
        "metrics: a resumed run loses its newest row",
        "training/rows.py",
        'if row["updates"] <= updates]',
        'if row["updates"] < updates]',
        "training/test_rows.py::test_resuming_drops_later_rows_and_the_torn_one",
    ),
    _m(
        "metrics: short updates weigh as much as long ones",
        "training/rows.py",
        "totals = np.sum(value.total, axis=0, dtype=np.float64)\n"
        "        counts = np.sum(value.count, axis=0, dtype=np.float64)",
        "totals = np.sum(value.total / np.maximum(value.count, 1), axis=0)\n"
        "        counts = np.sum(np.asarray(value.count) > 0, axis=0)",
        "training/test_rows.py::test_means_are_over_the_chunk_and_weighted_by_counts",
    ),
    _m(
        "summary: the return is that of the first tenth",
        "training/summary.py",
        "tail = known[-max(len(known) // 10, 1) :]",
        "tail = known[: max(len(known) // 10, 1)]",
        "training/test_summary.py::"
        "test_the_return_is_that_of_the_last_tenth_which_has_one",
    ),
    _m(
        "evaluation: the bound has no room for final observations",
        "training/evaluation.py",
        "max_rows = episodes_per_env * (bound + 1)",
        "max_rows = episodes_per_env * bound",
        "training/test_evaluation.py::test_the_longest_episodes_fit_the_bound",
    ),
    _m(
        "evaluation: who was faster plays on and counts",
        "training/evaluation.py",
        "row = jnp.where(played, state.num_played, episodes_per_env)",
        "row = jnp.where(step.last, state.num_played % episodes_per_env, 10**6)",
        "training/test_evaluation.py::test_who_is_done_plays_on_and_does_not_count",
    ),
    _m(
        "evaluation on simulators: it ends when the first is done",
        "training/host_evaluation.py",
        "self._played.min() < len(self._returns)",
        "self._played.max() < len(self._returns)",
        "cli/test_threaded.py::"
        "test_evaluation_counts_equally_many_episodes_of_each_environment",
    ),
    _m(
        "runner: a population stops with its worst member",
        "training/loop.py",
        "np.min(fetched(run.progress.skipped_in_a_row))",
        "np.max(fetched(run.progress.skipped_in_a_row))",
        "training/test_runner.py::test_a_population_goes_on_while_one_member_learns",
    ),
    _m(
        "runner: a state that may be spoilt is saved",
        "training/loop.py",
        "if not is_donated(run) and skipped_in_a_row(run) == 0:",
        "if not is_donated(run) and skipped_in_a_row(run) >= 0:",
        "training/test_runner.py::test_a_few_bad_gradients_are_counted",
    ),
    _m(
        "runner: the last chunk is as long as all others",
        "training/budget.py",
        "missing = self.amount - progress[self.unit]",
        "missing = self.amount",
        "training/test_runner.py::test_the_program_is_what_was_trained",
    ),
)

_EXPORT = (
    _m(
        "numpy: gates of an lstm change places",
        "numpy_actor/recurrent.py",
        "return np.concatenate([i / 2, f / 2, o / 2, g])",
        "return np.concatenate([i / 2, o / 2, f / 2, g])",
        "export/test_forms.py::test_gates_are_in_their_order",
    ),
    _m(
        "numpy: memory is cleared where all episodes start",
        "numpy_actor/recurrent.py",
        "if np.count_nonzero(first):",
        "if np.all(first):",
        "export/test_export.py::test_both_forms_act_as_the_network",
    ),
    _m(
        "numpy: observations are divided by their variance",
        "numpy_actor/inputs.py",
        "np.float32(1) / np.sqrt(variance + np.float32(1e-8))",
        "np.float32(1) / (variance + np.float32(1e-8))",
        "export/test_export.py::test_normalised_observations_are_part_of_the_actor",
    ),
    _m(
        "numpy: a squashed action is not moved to its centre",
        "numpy_actor/policies.py",
        'actions = self._equal["centre"] + self._equal["half_width"] * unit',
        'actions = self._equal["half_width"] * unit',
        "export/test_export.py::test_both_forms_act_as_the_network",
    ),
    _m(
        "numpy: a transformer attends to steps before the episode",
        "numpy_actor/transformer.py",
        "reach = np.minimum(np.where(first, 0, length), self._most)",
        "reach = np.minimum(length, self._most)",
        "numpy_actor/test_transformer.py::"
        "test_steps_are_those_of_the_equations_over_whole_episodes",
    ),
    _m(
        "numpy: the window of a pool begins inside where a side is odd",
        "numpy_actor/images.py",
        "count, before = (size + 1) // 2, size % 2",
        "count, before = (size + 1) // 2, 0",
        "numpy_actor/test_plain_images.py::"
        "test_a_pool_has_the_maxima_around_every_second_pixel",
    ),
    _m(
        "numpy: actions count from 0 in the environment, too",
        "numpy_actor/policies.py",
        "return _chosen(_possible(outputs, mask), rng) + self._start",
        "return _chosen(_possible(outputs, mask), rng)",
        "export/test_forms.py::test_a_uniform_choice_has_the_mean_of_its_values",
    ),
    _m(
        "export: statistics of observations are left behind",
        "export/folder.py",
        "arrays |= {name: np.asarray(x) for name, x in found.items()}",
        "arrays |= {}",
        "export/test_forms.py::test_statistics_are_inside",
    ),
    _m(
        "onnx: gates of an lstm are in the order of its own operator",
        "export/onnx_form/memories.py",
        "i, f, g, o = graph.split(gates, 4)",
        "i, o, f, g = graph.split(gates, 4)",
        "export/test_forms.py::test_gates_are_in_their_order",
    ),
)

_TESTING = (
    _m(
        "the Bayes optimum is of another prior than the tasks'",
        "testing/meta_learners.py",
        "chance = (1 + paid) / (2 + paid + unpaid)",
        "chance = (0.5 + paid) / (1 + paid + unpaid)",
        "testing/test_meta_learners.py::test_the_bayes_optimum_of_two_pulls_by_hand",
    ),
    _m(
        "probe: the newest action earns the delayed reward",
        "testing/probes.py",
        "jnp.where(state.time == 0, action, state.secret)",
        "action",
        "testing/test_probes.py::test_delayed_reward_pays_for_the_first_action_only",
    ),
    _m(
        "check: a memory that is not cleared is accepted",
        "testing/checks.py",
        "anew(empty),",
        "anew(old),",
        "testing/test_checks.py::test_broken_networks_are_rejected",
    ),
    _m(
        "equality: one leaf that is near will do",
        "testing/equality.py",
        "near = all(",
        "near = any(",
        "topologies/test_equality.py::test_the_class_is_the_strongest_that_holds",
    ),
)

_HOSTS = (
    _m(
        "hosts: processes add from the last device on",
        "axis.py",
        "for row in rows[1:]:",
        "for row in rows[:0:-1]:",
        "test_axis.py::test_several_processes_add_in_the_order_of_their_devices",
    ),
    _m(
        "hosts: a process id given twice counts as two processes",
        "hosts/roll.py",
        "if number in peers or number == 0:",
        "if number == 0:",
        "hosts/test_roll.py::test_a_process_id_given_twice_is_refused_by_all",
    ),
    _m(
        "hosts: a connection that closes is a process that ended well",
        "hosts/watch.py",
        "if number in self._failed or self._all_done.is_set():",
        "if number not in self._failed or self._all_done.is_set():",
        "hosts/test_watch.py::test_a_process_that_is_killed_ends_all_others",
    ),
    _m(
        "hosts: nobody looks at the clock of a chunk",
        "hosts/watch.py",
        "now - self._border > self._patience",
        "now - self._border > self._patience * 1e9",
        "hosts/test_watch.py::test_a_process_whose_chunk_does_not_come_back_ends_all",
    ),
    _m(
        "hosts: who was lost starts from nothing",
        "hosts/launcher.py",
        "if again and not resumed else []",
        "if again and resumed else []",
        "hosts/test_launcher.py::"
        "test_all_start_again_from_the_last_checkpoint_when_one_is_lost",
    ),
)

_CLI = (
    _m(
        "what a file says goes over options",
        "cli/config.py",
        "parsed, refused = _parse_all(base, command.argv)",
        "parsed, refused = base, []",
        "cli/test_config_files.py::test_options_go_over_a_file_and_the_file_over_defaults",
    ),
    _m(
        "a preset that is unknown is tried",
        "presets/__init__.py",
        "if name not in SUMMARIES:",
        "if not name:",
        "presets/test_presets.py::test_an_unknown_preset_gets_the_nearest_name",
    ),
    _m(
        "a package has no name but those that it imports",
        "lazy.py",
        'if not name.startswith("_") and find_spec',
        'if name.startswith("_") and find_spec',
        "test_command.py::test_modules_are_there_without_being_imported",
    ),
    _m(
        "a truth value is an integer",
        "cli/fields.py",
        "return type(value) is hint  #",
        "return isinstance(value, hint)  #",
        "cli/test_config.py::test_all_errors_of_a_file_are_reported_at_once",
    ),
    _m(
        "a negative number is an option",
        "cli/config.py",
        'if word.startswith("--") or not split:',
        'if word.startswith("-") or not split:',
        "cli/test_config.py::test_a_negative_number_is_no_option",
    ),
    _m(
        "the budget of workers counts rows of all for each gradient",
        "cli/args.py",
        "self.delays.quorum or 1) * self.envs_each\n        return self.envs_each",
        "self.delays.quorum or 1) * self.envs_each\n        return self.num_envs",
        "cli/test_args.py::test_an_update_takes_the_rows_that_its_topology_learns_from",
    ),
)

_ACTOR_CRITICS = (
    _m(
        "entropy in a target is that of the first action too",
        "algorithms/actor_critic/losses.py",
        "rewards = rewards + discounts * bonus",
        "rewards = rewards + bonus",
        "algorithms/test_off_policy.py::"
        "test_entropy_of_several_steps_is_that_of_the_states_on_the_way",
    ),
    _m(
        "twins begin with one key",
        "algorithms/actor_critic/parts.py",
        "keys = jax.random.split(key, config.num_critics)",
        "keys = jnp.stack([key] * config.num_critics)",
        "algorithms/test_off_policy.py::test_twins_begin_and_learn_apart",
    ),
    _m(
        "the policy's delay goes by who applies",
        "algorithms/actor_critic/parts.py",
        "due = jnp.asarray(metrics[POLICY_UPDATES]) > 0.0",
        "due = state.policy_phase + 1 >= policy_delay",
        "algorithms/test_off_policy.py::"
        "test_who_applies_a_gradient_goes_by_what_it_holds",
    ),
    _m(
        "cem: the std of elites is that of a sample",
        "algorithms/qt_opt/cem.py",
        "std = jnp.std(elites, axis=1)",
        "std = jnp.std(elites, axis=1, ddof=1)",
        "algorithms/test_cem.py::test_elites_are_refitted_with_the_std_of_all_of_them",
    ),
    _m(
        "cem: candidates are refitted beyond the bounds",
        "algorithms/qt_opt/cem.py",
        "return jnp.clip(mean[:, None] + std[:, None] * noise, -1.0, 1.0)",
        "return mean[:, None] + std[:, None] * noise",
        "algorithms/test_cem.py::test_what_is_evaluated_is_what_is_refitted",
    ),
    _m(
        "qt-opt: the clipped target takes the higher value",
        "algorithms/qt_opt/labels.py",
        "jnp.minimum(largest, other)",
        "jnp.maximum(largest, other)",
        "algorithms/test_qt_opt.py::test_targets_are_those_of_the_variants",
    ),
    _m(
        "smoothing noise is clipped before it is scaled",
        "algorithms/actor_critic/td3.py",
        "return jnp.clip(config.smoothing * normal, -largest, largest)",
        "return config.smoothing * jnp.clip(normal, -largest, largest)",
        "algorithms/test_off_policy.py::"
        "test_smoothing_is_drawn_for_each_row_and_dimension",
    ),
    _m(
        "targets and the policy's loss draw the same noise",
        "algorithms/actor_critic/sac.py",
        "alpha, batch, noise[length:]",
        "alpha, batch, noise[:-length]",
        "algorithms/test_off_policy.py::test_targets_and_the_policys_loss_draw_apart",
    ),
    _m(
        "a slow copy's rarer steps are no longer",
        "targets.py",
        "step = jnp.float32(-jnp.expm1(period * jnp.log1p(-jnp.float32(rate))))",
        "step = jnp.float32(rate)",
        "algorithms/test_off_policy.py::test_slow_copies_arrive",
    ),
    _m(
        "stored actions are read in the environment's units",
        "algorithms/actor_critic/losses.py",
        "unit = nets.units.unit(batch.action[:rows])",
        "unit = batch.action[:rows]",
        "algorithms/test_off_policy.py::test_entropies_are_in_units_of_the_bounds",
    ),
    _m(
        "all processes of noise begin again with one episode",
        "algorithms/actor_critic/noise.py",
        "before = jnp.where(first[:, None], 0.0, carry.process)",
        "before = jnp.where(first.any(), 0.0, carry.process)",
        "algorithms/test_naf.py::"
        "test_a_process_begins_again_with_its_own_episode_alone",
    ),
    _m(
        "the advantage has the factor's other side",
        "networks/normalised_advantage.py",
        "(unit - self.mean)[..., :, None], axis=-2)",
        "(unit - self.mean)[..., None, :], axis=-1)",
        "networks/test_normalised_advantage.py::"
        "test_the_sides_of_the_factor_are_not_mixed",
    ),
    _m(
        "all environments pull where one episode begins",
        "algorithms/pulling.py",
        "return jnp.where(first, newest[None], held)",
        "return jnp.where(first.any(), newest[None], held)",
        "algorithms/test_pulling.py::"
        "test_each_environment_pulls_where_its_own_episode_begins",
    ),
    _m(
        "actions leave without their units",
        "networks/continuous.py",
        "action = rows(self.centre) + rows(self.half_width) * unit",
        "action = rows(self.half_width) * unit",
        "networks/test_continuous.py::test_units_go_there_and_back_within_the_bounds",
    ),
)

_POPULATIONS = (
    _m(
        "all parts that evolve have the noise of the first",
        "perturbations.py",
        "begin, here = begin + flat.size, begin",
        "begin, here = flat.size, 0",
        "algorithms/test_es.py::test_every_part_that_evolves_has_noise_of_its_own",
    ),
    _m(
        "the direction of evolution strategies is half as long",
        "algorithms/es.py",
        "return unravel(-0.5 / total * uphill), Info({})",
        "return unravel(-0.25 / total * uphill), Info({})",
        "algorithms/test_es.py::test_the_direction_follows_the_paper",
    ),
    _m(
        "fitness that is no number is best",
        "algorithms/es.py",
        "jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)",
        "jnp.where(jnp.isnan(fitness), jnp.inf, fitness)",
        "algorithms/test_es.py::test_ranks_share_ties_and_put_what_is_no_number_last",
    ),
    _m(
        "equal fitness has ranks in its order",
        "algorithms/es.py",
        'upto = jnp.searchsorted(ordered, fitness, side="right")',
        "upto = below + 1",
        "algorithms/test_es.py::test_ranks_share_ties_and_put_what_is_no_number_last",
    ),
    _m(
        "devices have the noise of the same pairs",
        "algorithms/es.py",
        'begin = axis.index * number if config.exchange == "sums" else 0',
        "begin = 0",
        "loops/test_evolution.py::test_devices_share_the_members_of_one_generation",
    ),
    _m(
        "both members of a pair have the noise added",
        "loops/generations.py",
        "offsets = jnp.stack([offset, -offset], axis=1)",
        "offsets = jnp.stack([offset, offset], axis=1)",
        "loops/test_evolution.py::"
        "test_the_parameters_own_return_is_not_that_of_members",
    ),
    _m(
        "members are normalised by the parameters in the middle",
        "loops/generations.py",
        "return agent.settle(shifted(params, offset))",
        "return shifted(agent.settle(params), offset)",
        "loops/test_evolution.py::test_members_are_normalised_by_their_own_parameters",
    ),
    _m(
        "the batch goes on through a network that is not normalised",
        "networks/reference.py",
        "return ((rows - mean[None]) * scale[None] + start[None]).reshape(y.shape)",
        "return y",
        "networks/test_reference.py::test_every_layer_is_normalised_as_in_the_paper",
    ),
    _m(
        "the bias that was there is scaled with the mean",
        "networks/reference.py",
        "leaves[bias] = start + (start - mean) * scale",
        "leaves[bias] = start - mean * scale",
        "networks/test_reference.py::test_every_layer_is_normalised_as_in_the_paper",
    ),
    _m(
        "the noise is that of other pairs than those that entered",
        "algorithms/es.py",
        "        for x in (batch.pairs, batch.difference)\n",
        "        for x in (jnp.arange(total), batch.difference)\n",
        "topologies/test_generations.py::"
        "test_pairs_enter_whole_and_what_is_late_is_told",
    ),
    _m(
        "what is late enters the next generation",
        "bridge/generations/board.py",
        "            if task.generation == self._open:\n",
        "            if self._open >= 0:\n",
        "topologies/test_generations.py::"
        "test_pairs_enter_whole_and_what_is_late_is_told",
    ),
    _m(
        "a part that failed is not played again",
        "bridge/generations/board.py",
        "self._waiting.appendleft(task)",
        "self._late.clear()",
        "topologies/test_generations.py::"
        "test_a_part_that_fails_is_played_again_and_nothing_is_lost",
    ),
    _m(
        "the parameters' own episode is cut as members' are",
        "loops/playing.py",
        "capped = (jnp.arange(shape[0]) < shape[0] - 1)[:, None, None]",
        "capped = (jnp.arange(shape[0]) < shape[0])[:, None, None]",
        "loops/test_evolution.py::"
        "test_members_episodes_are_cut_and_the_parameters_own_are_not",
    ),
    _m(
        "members copy whoever is drawn, better or not",
        "loops/selection.py",
        "jnp.where(allowed & (score[source] > score), source, own)",
        "jnp.where(allowed, source, own)",
        "loops/test_selection.py::test_equal_scores_copy_nobody",
    ),
    _m(
        "lanes of several devices are cut as those of one",
        "training/regrouping.py",
        "lanes, *rest = [shape[0] * shape[1], *shape[2:]] if devices > 1 else shape",
        "lanes, *rest = shape",
        "training/test_regrouping.py::"
        "test_lanes_are_those_that_were_saved_in_their_order",
    ),
    _m(
        "at its own pace a member makes others copy, too",
        "topologies/evolving.py",
        "source = jnp.where(own == who, source, own)",
        "source = jnp.where(own >= 0, source, own)",
        "topologies/test_evolving.py::"
        "test_at_its_own_pace_a_member_copies_the_newest_of_others",
    ),
    _m(
        "members that are frozen may come back",
        "topologies/halving.py",
        "order = jnp.lexsort((-score, frozen))",
        "order = jnp.lexsort((-score, frozen & False))",
        "topologies/test_halving.py::test_who_is_frozen_stays_so",
    ),
    _m(
        "rungs are counted with the members of the one before",
        "loops/rungs.py",
        "found.append(Rung(begin, found[-1].members // config.eta))",
        "found.append(Rung(begin, num_members // config.eta))",
        "topologies/test_halving.py::test_survivors_go_on_and_do_not_start_again",
    ),
    _m(
        "second derivatives know nothing of what was drawn before",
        "networks/twice.py",
        "u * (0.5 * u + self.past * _before(u, self.first))",
        "u * (0.5 * u)",
        "networks/test_twice.py::"
        "test_both_derivatives_are_those_of_the_expected_return",
    ),
    _m(
        "what was drawn in an episode goes on in the next one",
        "networks/twice.py",
        "total = jnp.where(first_t, 0.0, total)",
        "total = jnp.where(first_t, total, total)",
        "networks/test_twice.py::"
        "test_episodes_begin_anew_and_rows_that_are_last_do_not_count",
    ),
    _m(
        "maml takes the gradients of its steps for constants",
        "loops/inner_steps.py",
        "params = jax.tree.map(lambda x, g: x - config.inner_rate * g, params, grads)",
        "grads = jax.lax.stop_gradient(grads)\n        "
        "params = jax.tree.map(lambda x, g: x - config.inner_rate * g, params, grads)",
        "loops/test_inner_steps.py::test_every_step_is_differentiated",
    ),
    _m(
        "adapted parameters are judged by the data that they adapted to",
        "loops/inner_steps.py",
        "adapt_key, last_key = jax.random.split(key)",
        "adapt_key, last_key = jax.random.split(key)\n    "
        "last_key = jax.random.split(adapt_key, config.inner_steps)[-1]",
        "loops/test_inner_steps.py::test_gradients_are_those_of_formulas",
    ),
    _m(
        "the gradients of all tasks add up",
        "loops/adaptation.py",
        "jax.tree.map(partial(jnp.mean, axis=0), (grads, metrics))",
        "jax.tree.map(partial(jnp.sum, axis=0), (grads, metrics))",
        "loops/test_adaptation.py::"
        "test_tasks_count_equally_however_long_their_episodes_are",
    ),
    _m(
        "tasks are the same in each step",
        "loops/adaptation.py",
        "key, _ = unroll_keys(run.key, run.progress.updates, 0)",
        "key, _ = unroll_keys(run.key, type(run.progress.updates).zero(), 0)",
        "loops/test_adaptation.py::"
        "test_tasks_count_equally_however_long_their_episodes_are",
    ),
    _m(
        "an episode goes on in another task",
        "envs/tasks/episodes.py",
        "return obs, _State(state.task, inner), *others",
        "return obs, _State(self._draw(key), inner), *others",
        "envs/test_tasks_navigation.py::test_each_episode_is_in_a_task_of_its_own",
    ),
    _m(
        "scores of before a copy are kept",
        "topologies/evolving.py",
        "record = evolved.record.cleared(copied)",
        "record = evolved.record",
        "topologies/test_evolving.py::test_who_copied_is_judged_by_later_scores_alone",
    ),
    _m(
        "a discount is changed as it is",
        "loops/selection.py",
        "x = 1.0 - values if discount else values",
        "x = values",
        "loops/test_selection.py::test_a_discount_is_changed_by_what_it_lacks_to_1",
    ),
    _m(
        "copied hyperparameters are not changed",
        "topologies/evolving.py",
        "theirs = explore[name].changed(key, theirs)",
        "theirs = theirs + 0.0 * explore[name].factor",
        "topologies/test_evolving.py"
        "::test_what_is_copied_is_changed_and_the_next_step_uses_it",
    ),
)


_EPISODIC = (
    _m(
        "tables: distances of a product are those of the neighbours",
        "algorithms/episodic/table.py",
        "sure |= 2.0 * error <= _EQUAL * far + within",
        "sure |= True",
        "algorithms/episodic/test_episodic_tables.py::"
        "test_distances_of_long_keys_are_those_of_differences",
    ),
    _m(
        "tables: slots without an entry are near",
        "algorithms/episodic/table.py",
        "return jnp.where(self.there.reshape(-1)[index], squared, jnp.inf)",
        "return squared",
        "algorithms/episodic/test_episodic_tables.py::"
        "test_slots_without_an_entry_are_never_near",
        "algorithms/episodic/test_episodic_tables.py::"
        "test_a_table_is_the_slow_one_over_random_reads_and_writes",
    ),
    _m(
        "tables: what is read stays as old as it was",
        "algorithms/episodic/table.py",
        'stamp = table.stamp.reshape(-1).at[index].set(now, mode="drop")',
        "stamp = table.stamp.reshape(-1)",
        "algorithms/episodic/test_episodic_tables.py::TestLeastRecentlyUsed",
    ),
    _m(
        "NEC: equal targets of a batch count once",
        "algorithms/episodic/writing.py",
        "share = 1.0 - (1.0 - alpha) ** writes.number.astype(jnp.float32)",
        "share = alpha * jnp.ones_like(writes.mean)",
        "algorithms/episodic/test_episodic_tables.py::TestOneBatch",
    ),
    _m(
        "MFEC: an open episode is discounted by one step too few",
        "algorithms/episodic/episodes.py",
        "** (age + 1).astype(jnp.float32)",
        "** age.astype(jnp.float32)",
        "algorithms/episodic/test_open_episodes.py::"
        "test_every_row_is_written_once_with_its_return",
    ),
)

_PLAIN = (
    _m(
        "an agent that acts otherwise acts in NumPy as before",
        "types.py",
        "ours = self.plain is not None and self.plain.act is self.act",
        "ours = self.plain is not None",
        "bridge/plain/test_plain_actors.py::"
        "test_a_policy_that_numpy_does_not_know_is_refused",
    ),
    _m(
        "numpy: leaves of a dict come as they were written",
        "trees.py",
        'return [(f"[{key!r}]", tree[key]) for key in sorted(tree)]',
        'return [(f"[{key!r}]", tree[key]) for key in tree]',
        "test_trees.py::test_leaves_and_where_they_are_come_in_the_order_of_jax",
    ),
    _m(
        "numpy: acts with the keys of the environment",
        "bridge/plain/actor.py",
        "return both[:, 0], both[:, 1]",
        "return both[:, 1], both[:, 0]",
        "bridge/plain/test_plain_actors.py::"
        "test_a_process_acts_without_jax_as_one_with_it",
    ),
    _m(
        "numpy: a draw on the border takes the action before",
        "bridge/plain/drawn.py",
        "action += draw >= weight",
        "action += draw > weight",
        "bridge/plain/test_drawn.py::test_a_draw_on_the_border_takes_the_next_action",
    ),
    _m(
        "an exported action is not within its bounds",
        "export/step.py",
        "return jnp.clip(x, low, high).astype(x.dtype)",
        "return jnp.clip(x, low, None).astype(x.dtype)",
        "export/test_export.py::test_no_action_is_outside_its_bounds",
    ),
    _m(
        "rounds: what is as old as the bound is dropped",
        "loops/rounds.py",
        "oldest = 0 if max_lag is None else len(rows) - max_lag",
        "oldest = 0 if max_lag is None else len(rows) - max_lag + 1",
        "loops/test_rounds.py::test_a_bound_starves_the_slow_as_f9_says",
    ),
    _m(
        "kept: a run that goes on keeps what came after",
        "bridge/actor_learner/kept_unrolls.py",
        "int(number) >= first_update",
        "int(number) > first_update + 9",
        "bridge/actor_learner/test_kept_unrolls.py::"
        "test_a_run_that_goes_on_drops_what_came_after",
    ),
)

_FLEET = (
    _m(
        "fleet: what comes twice is learned from twice",
        "fleet/proxy.py",
        "        if got != due:",
        "        if got[0] != due[0]:",
        "fleet/test_fleet_parts.py::test_an_unroll_is_accepted_once_and_in_its_turn",
    ),
    _m(
        "fleet: what is lost unseen costs nothing",
        "fleet/proxy.py",
        "self._count(self.rows_per_unroll)",
        "self._count(0)",
        "fleet/test_fleet_parts.py::test_what_is_lost_unseen_counts_as_a_whole_unroll",
    ),
    _m(
        "fleet: JAX shares what lies in the object store",
        "fleet/arrays.py",
        "return jax.device_put(own(tree), device)",
        "return jax.device_put(tree, device)",
        "fleet/test_fleet_parts.py::"
        "test_arrays_are_sent_as_they_are_and_own_themselves",
    ),
    _m(
        "fleet: lockstep acts with the newest version",
        "fleet/parameters.py",
        "version = at_least if exact else max(self._held)",
        "version = max(self._held)",
        "fleet/test_fleet_parts.py::"
        "test_a_holder_gives_the_version_that_is_due_or_the_newest",
    ),
    _m(
        "fleet: a version that was overtaken is taken for dropped",
        "fleet/parameters.py",
        "lambda: at_least in self._held or at_least < self._oldest",
        "lambda: max(self._held, default=-1) >= at_least",
        "fleet/test_fleet_parts.py::"
        "test_a_holder_gives_the_version_that_is_due_or_the_newest",
    ),
    _m(
        "fleet: a new holder is not told what was published before",
        "fleet/published.py",
        "for version in sorted(self._references):",
        "for version in ():",
        "fleet/test_fleet_parts.py::"
        "test_a_version_enters_the_store_once_and_a_new_holder_gets_what_is_kept",
    ),
    _m(
        "fleet: a gradient that was left with a shard is applied twice",
        "fleet/shards.py",
        "left, part = self._left.pop(worker, (None, None))",
        "left, part = self._left.get(worker, (None, None))",
        "fleet/test_fleet_shards.py::test_a_shard_applies_what_was_left_with_it_once",
    ),
    _m(
        "fleet: shards elsewhere take no gradient for stale",
        "fleet/shard_store.py",
        'self._asked(index, "apply", *part, staleness)',
        'self._asked(index, "apply", *part, 0)',
        "fleet/test_fleet_shards.py::"
        "test_a_server_whose_shards_are_elsewhere_is_the_server",
    ),
    _m(
        "fleet: a step that is asked for twice is taken twice",
        "fleet/stepping_roles.py",
        "        member.next_unroll += 1\n",
        "",
        "fleet/test_fleet_seats.py::test_a_step_that_comes_twice_is_not_taken_twice",
    ),
    _m(
        "fleet: environments elsewhere go on with the keys of the unroll before",
        "fleet/asking.py",
        "keys, self._keys = self._keys, None",
        "keys = None",
        "fleet/test_fleet_seats.py::"
        "test_a_step_is_one_call_and_what_an_unroll_needs_goes_with_it",
    ),
    _m(
        "fleet: actors in lockstep act by NumPy, where the bits of others are promised",
        "bridge/actor_learner/asked.py",
        "free = local and not config.is_deterministic",
        "free = local",
        "bridge/plain/test_plain_actors.py::"
        "test_auto_acts_by_numpy_where_no_bits_are_promised",
    ),
    _m(
        "gossip: each process draws whom it meets for itself",
        "topologies/gossip/fleet.py",
        "number = int(self._drawn(root, count_of(round_)))",
        "number = int(self._drawn(root, count_of(round_ + place)))",
        "topologies/test_gossip_processes.py::"
        "test_of_three_one_rests_and_pairs_are_the_same_for_all",
    ),
    _m(
        "gossip: two that are fast have all turns",
        "fleet/turns.py",
        "            busy |= pair\n",
        "",
        "fleet/test_turns.py::"
        "test_no_ring_of_learners_waits_for_itself_and_meetings_have_both",
    ),
    _m(
        "gossip: a learner whose turn it is is met by another one",
        "fleet/turns.py",
        "busy |= self._under_way.keys()",
        "busy |= set()",
        "fleet/test_turns.py::"
        "test_no_ring_of_learners_waits_for_itself_and_meetings_have_both",
    ),
    _m(
        "gossip: rates of a learner at its own pace count its own steps alone",
        "topologies/gossip/own_pace.py",
        "passed(made.state, local.since.env_steps + made.env_steps)",
        "passed(made.state, made.env_steps)",
        "topologies/test_gossip.py::"
        "test_learners_at_their_own_pace_follow_a_schedule_as_by_hand",
    ),
    _m(
        "gossip: who meets another one at its own pace takes all that it has",
        "topologies/gossip/own_pace.py",
        "mean = moved(ours, (0.5, theirs, ours))",
        "mean = theirs",
        "topologies/test_gossip.py::test_an_update_that_came_meanwhile_is_kept",
    ),
    _m(
        "gossip: both neighbours of a ring of two are read as one",
        "fleet/peers.py",
        "return [found.get(i) for i in others]",
        "return [found[i] for i in here]",
        "fleet/test_fleet_peers.py::test_both_neighbours_of_a_ring_of_two_are_one",
    ),
    _m(
        "fleet: a part of a generation that is over is played with newer parameters",
        "fleet/roles.py",
        "        if version != generation:\n",
        "        if version < generation:\n",
        "fleet/test_fleet_parts.py::"
        "test_a_part_is_played_with_the_parameters_of_its_generation_or_not_at_all",
    ),
)

_STUDENTS = (
    _m(
        "the student's logits have the teacher's temperature too",
        "algorithms/policy_distillation/loss.py",
        "return Categorical(said / temperature).kl(Categorical(logits))",
        "return Categorical(said / temperature).kl(Categorical(logits / temperature))",
        "algorithms/test_policy_distillation.py::"
        "test_the_temperature_divides_what_the_teacher_says_alone",
    ),
    _m(
        "values of actions that there are not are subtracted",
        "algorithms/policy_distillation/loss.py",
        "there = said > -jnp.inf",
        "there = said >= -jnp.inf",
        "algorithms/test_policy_distillation.py::"
        "test_an_action_that_there_is_not_weighs_nothing_in_loss_and_gradient",
    ),
    _m(
        "a teacher thinks as much of actions that its task lacks as of some",
        "algorithms/policy_distillation/teachers.py",
        "constant_values=-jnp.inf",
        "constant_values=0.0",
        "algorithms/test_policy_distillation.py::"
        "test_each_lane_learns_from_and_is_acted_by_the_teacher_of_its_task",
    ),
    _m(
        "a student of several tasks may do what its task lacks",
        "networks/tasks.py",
        "return steps._replace(obs=Masked(steps.obs.obs, steps.obs.allowed))",
        "return steps._replace(obs=Masked(steps.obs.obs, steps.obs.allowed | True))",
        "algorithms/test_policy_distillation.py::"
        "test_each_lane_learns_from_and_is_acted_by_the_teacher_of_its_task",
    ),
    _m(
        "an auxiliary phase has targets of the parameters that learned",
        "loops/phases.py",
        "given.targets(own.params, trajectory)",
        "given.targets(parts.state.policy.params, trajectory)",
        "loops/test_phases.py::test_a_phase_sees_all_its_rollouts_and_no_others",
    ),
    _m(
        "after the first auxiliary phase there is one after each rollout",
        "loops/phases.py",
        "jax.lax.cond(data.next == 0, phase, none, own)",
        "jax.lax.cond(data.laps > 0, phase, none, own)",
        "loops/test_phases.py::test_a_phase_has_the_rate_of_its_last_rollout",
    ),
    _m(
        "the policy is held to what it becomes, and not to what it was",
        "algorithms/ppg.py",
        '"kl": rows.policy.kl(policy)',
        '"kl": policy.kl(rows.policy)',
        "algorithms/test_ppg.py::test_the_loss_is_its_three_terms",
    ),
    _m(
        "tasks of one environment draw alike",
        "envs/several.py",
        "x.env.reset(jax.random.fold_in(key, x.number))",
        "x.env.reset(jax.random.fold_in(key, 0))",
        "envs/test_several.py::test_tasks_draw_for_themselves",
    ),
)

_GUIDED = (
    _m(
        "the value of a regularised gain has the short form",
        "algorithms/gps/lqr.py",
        "product = row[:, None] * (2.0 * both[a] + change)[None]",
        "product = row[:, None] * both[a][None]",
        "algorithms/gps/test_lqr.py::test_the_value_is_that_of_a_regularised_gain",
    ),
    _m(
        "what is added to Q_uu is that of another initial state",
        "algorithms/gps/lqr.py",
        "return x.reshape(size, -1).T.reshape(*x.shape[1:], size)",
        "return x.reshape(size, -1).T.reshape(*x.shape[1:], size)[..., ::-1]",
        "algorithms/gps/test_lqr.py::test_a_batch_is_what_each_is_alone",
    ),
    _m(
        "a step that beats its prediction shrinks the next",
        "algorithms/gps/constrained.py",
        "error = jnp.maximum(predicted - actual, _LEAST_ERROR)",
        "error = predicted - actual",
        "algorithms/gps/test_constrained.py::"
        "test_a_step_that_beats_its_prediction_grows_most",
    ),
    _m(
        "a line search scales the feedback too",
        "algorithms/gps/ilqg.py",
        "action = action + size * offset + gain @ (now - state)",
        "action = action + size * (offset + gain @ (now - state))",
        "algorithms/gps/test_ilqg.py::test_the_line_search_has_these_numbers",
    ),
    _m(
        "an indefinite matrix is taken for a definite one",
        "algorithms/gps/matrices.py",
        "own = own & (pivot > floor)",
        "own = own & (pivot > -floor)",
        "algorithms/gps/test_lqr.py::test_what_is_added_is_enough",
    ),
    _m(
        "the lessons of controllers lack their offsets",
        "guidance.py",
        'jnp.einsum("...ad,...d->...a", self.gain, states) + self.offset',
        'jnp.einsum("...ad,...d->...a", self.gain, states)',
        "algorithms/gps/test_global_policy.py::"
        "test_a_controller_has_a_gain_and_an_offset_for_every_step",
    ),
)

_MODELS = (
    _m(
        "the end of an imagined branch is an end",
        "envs/imagined.py",
        "discount = (~(state.last | ended)).astype(jnp.float32)",
        "discount = (~(state.last | last)).astype(jnp.float32)",
        "envs/test_imagined.py::test_the_end_of_a_branch_is_no_end",
    ),
    _m(
        "imagination comes on top of what is real",
        "loops/dyna.py",
        "(1.0 - share) * x + share * y",
        "x + share * y",
        "loops/test_dyna.py::test_imagination_counts_by_its_share_however_much_there_is",
    ),
    _m(
        "a feature that never changes is divided by its rounding",
        "statistics.py",
        "(of.count > 0) & (deviation > rounding)",
        "(of.count > 0) & (deviation > 0.0)",
        "algorithms/test_world_model.py::"
        "test_a_feature_that_never_changes_has_scale_one",
    ),
    _m(
        "prioritised sweeping adds the size of the error",
        "algorithms/tabular/sweeping.py",
        "moved(now.table, pair, now.backups[pair], rule)",
        "moved(now.table, pair, now.table.values[pair] + now.queue[pair], rule)",
        "algorithms/tabular/test_tabular_dyna.py::test_a_planned_update_follows_the_errors_sign",
    ),
)

_TRUST_REGIONS = (
    _m(
        "the search halves, and the full step is applied",
        "trust_region.py",
        "step = jnp.where(found.fits, found.factor * full, 0.0)",
        "step = jnp.where(found.fits, full, 0.0)",
        "test_trust_region.py::test_what_is_taken_is_what_was_looked_at",
    ),
    _m(
        "the search looks at the gain alone",
        "trust_region.py",
        "fits = (gain > 0.0) & (kl <= config.delta)",
        "fits = gain > 0.0",
        "test_trust_region.py::test_what_is_taken_is_what_was_looked_at",
    ),
    _m(
        "conjugate gradients go on when they are done",
        "trust_region.py",
        "goes_on = (square > enough) & (curvature > 0.0)",
        "goes_on = square >= 0.0",
        "test_trust_region.py::test_conjugate_gradients_stay_where_they_are_done",
    ),
    _m(
        "what a control variate explains is added whole, however little it is believed",
        "algorithms/trust_region/q_prop.py",
        "eta[..., None] * slopes",
        "1.0 * slopes",
        "algorithms/trust_region/test_q_prop.py::"
        "test_estimates_are_unbiased_and_of_the_variance_that_is_known",
    ),
    _m(
        "a search of MAML bounds what policies do before they adapt",
        "loops/outer_steps.py",
        "return outer.policies(adapted, known.last)",
        "return outer.policies(params, known.last)",
        "loops/test_outer_steps.py::test_the_bound_is_of_adapted_policies",
    ),
)

MUTATIONS = (
    *_RETURNS,
    *_LOSSES,
    *_DISTRIBUTIONS,
    *_ALGORITHMS,
    *_PARTS,
    *_NETWORKS,
    *_REPLAY,
    *_LOOPS,
    *_TOPOLOGIES,
    *_ACTOR_CRITICS,
    *_POPULATIONS,
    *_GUIDED,
    *_STUDENTS,
    *_TRUST_REGIONS,
    *_BRIDGE,
    *_ENVS,
    *_TRAINING,
    *_EXPORT,
    *_TESTING,
    *_HOSTS,
    *_CLI,
    *_EPISODIC,
    *_FLEET,
    *_PLAIN,
    *_MODELS,
)
