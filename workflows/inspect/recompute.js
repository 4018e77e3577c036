"use strict";
// What another route or beta makes of the dumped signals: numbers only, no element of the page.
const recompute = {
  // (route, beta's place in data.betas) -> mean of exp(-beta (H - floor)) over the distilled tokens whose H is known.
  mean(data, route, place) {
    let sum = 0, tokens = 0;
    for (const rollout of data.rollouts) {
      if (rollout.shares[route] > 0 && rollout.sums) {
        sum += rollout.sums[place];
        tokens += rollout.tokens;
      }
    }
    return tokens ? sum / tokens : null;
  },

  // Weights of one rollout's tokens, null where there is none.
  weights(data, rollout, detail, route, place) {
    const mean = this.mean(data, route, place);
    const entropies = detail.signals.teacher_entropy;
    if (!entropies || mean === null || !(rollout.shares[route] > 0)) return null;
    const beta = data.betas[place];
    return entropies.map((entropy) => entropy === null ? null : Math.exp(-beta * (entropy - data.entropy_floor)) / mean);
  },

  // Which branch a rollout takes on a route: as in the run where the share is the run's.
  branch(data, rollout, route) {
    if (route === data.routes[0]) return rollout.branch;
    if (rollout.shares[route] > 0) return "distilled";
    const acts = data.settings.policy_gradient !== "none" && rollout.advantage;
    return acts ? "reinforced" : "neither";
  },

  // Counts over the batch.
  change(data, route) {
    const own = data.routes[0];
    const found = { distilled: 0, more: 0, fewer: 0, unknown: 0 };
    for (const rollout of data.rollouts) {
      const now = rollout.shares[route] > 0, then = rollout.shares[own] > 0;
      found.distilled += now;
      found.more += now && !then;
      found.fewer += then && !now;
      found.unknown += now && !rollout.sums;
    }
    return found;
  },
};
