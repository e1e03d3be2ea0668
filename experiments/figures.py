"""Writes results/README.md from the results beside it: no number there is typed.

    python experiments/figures.py

Each section is a function from one file of results to Markdown, with the command that
makes the file again. A file that is not there has no section.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tables.borders import conformance
from tables.fleets import (
    actor_hosts,
    collectors,
    fleet,
    fleet_actors,
    hosts,
    inference,
    kills,
    stragglers,
    worker_scaling,
)
from tables.learning import (
    apex_actors,
    burn_in,
    craftax,
    demonstrations,
    distillation,
    episodic,
    learning,
    learning_from_replay,
    memory,
    ppg,
    replay,
    self_play,
    students,
    tasks_of_suites,
)
from tables.markdown import by_seeds, counted
from tables.models import dyna, guided, lander, opened, qt_opt
from tables.populations import es_references, maml, pbt, rl2
from tables.speed import (
    bridge,
    draws,
    es_workers,
    evolution,
    impala_table,
    latency,
    lqr,
    pairs,
    resets,
    scaling,
    selection,
    suites,
    throughput,
    workers,
)

RESULTS = Path(__file__).parent / "results"
FIRST = """# Results

Written by `python experiments/figures.py` from the JSON in this folder, which the
commands below make: do not edit. Most files say what machine they are from; those that
do not are from two cores of an AMD EPYC, Python 3.11, jax 0.10.2, no GPU. Ratios are
taken within pairs that ran in turn; medians are over pairs, rounds or seeds.
"""


class Section(NamedTuple):
    """A part of the page."""

    title: str
    file: str
    """In the folder of results."""
    command: str
    render: Callable[[Any], str]


def page(folder: Path = RESULTS) -> str:
    """The whole text."""
    parts = [FIRST]
    for title, file, command, render in SECTIONS:
        if (folder / file).exists():
            told = render(json.loads((folder / file).read_text())).strip()
            parts.append(f"## {title}\n\n`{command}`\n\n{told}\n")
            if picture := _picture(folder / file):
                parts.append(f"![{title}]({picture.relative_to(folder)})\n")
    return "\n".join(parts)


def _picture(path: Path) -> Path | None:
    beside = path.with_suffix(".png")
    return beside if beside.exists() else None


_B, _E = "python experiments/benchmarks", "python experiments"
_PPO = (
    f"{_B}/pairs.py --ours '... throughput.py --json-line' --theirs '... ppo_peer.py'"
)
_DQN = f"{_B}/pairs.py --ours '... replay.py --json-line' --theirs '... replay_peers.py"
_AC = f"{_B}/pairs.py --ours '... off_policy.py --algorithm"
_REJAX = "--theirs '... replay_peers.py rejax"
SECTIONS = (
    Section("Learning", "learning.json", f"{_B}/learning.py", learning),
    Section(
        "Learning from replay",
        "learning_replay.json",
        f"{_B}/learning.py --only 'DQN, CartPole' C51",
        learning_from_replay,
    ),
    Section(
        "PPO beside PureJaxRL: CartPole", "pairs_ppo_cartpole.json", _PPO, pairs
    ),
    Section(
        "PPO beside PureJaxRL: Breakout, one thread", "pairs_ppo_breakout.json", _PPO,
        pairs,
    ),
    Section(
        "PPO beside PureJaxRL: Breakout, two devices of one thread",
        "pairs_ppo_breakout_two_devices.json",
        _PPO.replace("--json-line", "--json-line --num-devices 2"), pairs,
    ),
    Section(
        "DQN beside PureJaxRL", "pairs_dqn_purejaxrl.json", f"{_DQN} purejaxrl'", pairs
    ),
    Section("DQN beside Rejax", "pairs_dqn_rejax.json", f"{_DQN} rejax'", pairs),
    Section(
        "SAC beside Rejax", "pairs_sac_rejax.json", f"{_AC} sac' {_REJAX}-sac'", pairs
    ),
    Section(
        "TD3 beside Rejax", "pairs_td3_rejax.json", f"{_AC} td3' {_REJAX}-td3'", pairs
    ),
    Section(
        "Evolution strategies beside evosax", "pairs_es_evosax.json",
        f"{_B}/pairs.py --ours '... evolution.py --json-line'"
        " --theirs '... evosax_peer.py'", pairs,
    ),
    Section(
        "Share of the lower bound", "throughput_cartpole.json", f"{_B}/throughput.py",
        throughput,
    ),
    Section(
        "Share of the lower bound: PPO on Breakout", "throughput_breakout.json",
        f"{_B}/throughput.py --only ppo --env-name Breakout-MinAtar --num-envs 64"
        " --unroll-length 128 --torso mlp",
        throughput,
    ),
    Section("A generation", "evolution.json", f"{_B}/evolution.py", evolution),
    Section(
        "Evolution strategies on more workers", "es_study/study.json",
        f"{_E}/es_study.py", es_workers,
    ),
    Section(
        "Evolution strategies with virtual batch normalisation",
        "es_reference_study/study.json",
        f"{_E}/es_reference_study.py", es_references,
    ),
    Section(
        "Ape-X by the number of actors",
        "apex_study/study.json",
        f"{_E}/apex_study.py",
        apex_actors,
    ),
    Section("Replay", "replay_study/study.json", f"{_E}/replay_study.py", replay),
    Section("Draws", "replay_draws.json", f"{_B}/replay.py --only draws", draws),
    Section("Burn-in", "burn_in_study/study.json", f"{_E}/burn_in_study.py", burn_in),
    Section(
        "Memory in I-Maze 9x9: R2D2 beside DQN", "memory_study/study.json",
        f"{_E}/memory_study.py --first-seed 1 --methods gtrxl none", memory,
    ),
    Section(
        "Demonstrations: R2D3 beside R2D2", "demonstration_study/study.json",
        f"{_E}/demonstration_study.py --settings.env-name IMaze-21x21 --ratios 0 0.25",
        demonstrations,
    ),
    Section("The bridge", "bridge.json", f"{_B}/bridge.py", bridge),
    Section(
        "Who waits for whom", "impala_table.json", f"{_B}/impala_table.py",
        impala_table,
    ),
    Section(
        "Where episodes end in suites", "conformance.json", f"{_B}/conformance.py",
        conformance,
    ),
    Section("Where episodes begin", "resets.json", f"{_B}/resets.py", resets),
    Section("The stream beside suites", "suites.json", f"{_B}/suites.py", suites),
    Section("Devices", "scaling.json", f"{_B}/scaling.py", scaling),
    Section("Fleet", "fleet.json", f"{_B}/fleet.py --pairs 5", fleet),
    Section(
        "Processes without JAX", "fleet_actors.json",
        f"{_B}/fleet_actors.py --pairs 5", fleet_actors,
    ),
    Section("Hosts", "hosts.json", f"{_B}/hosts.py", hosts),
    Section(
        "Hosts of actors", "actor_hosts.json", f"{_B}/actor_hosts.py", actor_hosts
    ),
    Section(
        "Central inference beside local", "inference.json",
        f"{_B}/inference.py --networks small lstm --num-envs 8 32 128 256 --rounds 2"
        " --seconds 1",
        inference,
    ),
    Section(
        "Central inference, deep", "inference_deep.json",
        f"{_B}/inference.py --networks deep --acting-only --num-envs 8 32 64"
        " --rounds 1 --seconds 2",
        inference,
    ),
    Section(
        "Stragglers", "straggler_study/study.json", f"{_E}/straggler_study.py",
        stragglers,
    ),
    Section(
        "Gossip", "gossip_study/study.json", f"{_E}/gossip_study.py",
        by_seeds(("delay_ms", "slowest", "method"), "seconds"),
    ),
    Section(
        "Asynchronous NAF", "naf/study.json", f"{_E}/naf_study.py", collectors
    ),
    Section(
        "Asynchronous NAF by the clock", "naf_threads/study.json",
        f"{_E}/naf_threads_study.py", collectors,
    ),
    Section(
        "Distillation, I-Maze 9x9", "distillation_imaze/study.json",
        f"{_E}/distillation_study.py", distillation,
    ),
    Section(
        "Distillation, Meta-Fetch 7x7", "distillation_metafetch/study.json",
        f"{_E}/distillation_study.py --settings.env-name MetaFetch-7x7", distillation,
    ),
    Section("Actors that left", "latency.json", f"{_B}/latency.py", latency),
    Section("Workers", "workers.json", f"{_B}/workers.py", workers),
    Section(
        "More workers, CartPole", "worker_scaling/scaling.json",
        f"{_E}/worker_scaling.py", worker_scaling,
    ),
    Section(
        "More workers, LunarLander", "worker_scaling_lander/scaling.json",
        f"{_E}/worker_scaling.py (see its help)", worker_scaling,
    ),
    Section(
        "Staleness", "staleness/staleness.json", f"{_E}/staleness.py",
        by_seeds(("method", "delay"), "return"),
    ),
    Section(
        "Gorila's bundles", "gorila/gorila.json", f"{_E}/gorila_study.py",
        by_seeds(("num_bundles", "method"), "return"),
    ),
    Section(
        "Random search, halving, PBT", "pbt_study/study.json", f"{_E}/pbt_study.py",
        pbt,
    ),
    Section(
        "What copying costs", "selection.json", f"{_B}/selection.py", selection
    ),
    Section("RL^2", "rl2/study.json", f"{_E}/rl2_study.py", rl2),
    Section(
        "What a gradient gains in a new task", "maml/study.json",
        f"{_E}/maml_study.py", maml,
    ),
    Section(
        "Episodic control against DQN, Catch", "episodic_control/study.json",
        f"{_E}/episodic_control_study.py", episodic,
    ),
    Section(
        "NEC with a table of 128 entries against DQN, Catch",
        "episodic_control_small/study.json",
        f"{_E}/episodic_control_study.py --methods nec dqn --nec.capacity 128"
        " --total-steps 40000 --num-points 16",
        episodic,
    ),
    Section(
        "Students of one game and of several", "policy_distillation/study.json",
        f"{_E}/policy_distillation_study.py --methods kl", students,
    ),
    Section(
        "Doors, and who waits for whom", "gps/study.json", f"{_E}/gps_study.py", guided
    ),
    Section(
        "Doors in other poses, by other seeds", "gps_fresh/study.json",
        f"{_E}/gps_study.py --paces together --first-seed 2 --num-seeds 3"
        " --poses-seed 20000", opened,
    ),
    Section("LQR over initial states", "lqr.json", f"{_B}/lqr.py", lqr),
    Section("Dyna", "dyna/study.json", f"{_E}/dyna_study.py", dyna),
    Section(
        "LunarLander by workers", "lunar_lander/study.json",
        f"{_E}/lunar_lander_study.py (settings in study.json)", lander,
    ),
    Section(
        "A task of each suite, with PPO",
        "suites/study.json",
        f"{_E}/suites_study.py",
        tasks_of_suites,
    ),
    Section(
        "Tic-tac-toe against oneself",
        "self_play/study.json",
        f"{_E}/self_play_study.py",
        self_play,
    ),
    Section(
        "Achievements in Craftax-Classic",
        "craftax/study.json",
        f"{_E}/craftax_study.py",
        craftax,
    ),
    Section("PPG beside PPO", "ppg/study.json", f"{_E}/ppg_study.py", ppg),
    Section(
        "QT-Opt: data, targets and updaters", "qt_opt/study.json",
        f"{_E}/qt_opt_study.py", qt_opt,
    ),
    Section(
        "Faults", "fault_injection.json", f"{_B}/fault_injection.py --num-faults 200",
        counted("faults"),
    ),
    Section(
        "Kills", "fleet_kills.json", f"{_B}/fleet_kills.py --num-kills 100", kills
    ),
    Section(
        "Signals", "signal_storm.json", f"{_B}/signal_storm.py --num-signals 200",
        counted("signals"),
    ),
)  # fmt: skip


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(page())
