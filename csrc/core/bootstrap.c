/* ROC figures of many resamples of the same samples, all sums exact integers.
 *
 * A resample is how often each sample was drawn. It is counted once and serves all pairs of scores, whose orders were
 * found beforehand, so no resample is sorted. Members and non-members are walked apart, and a non-member knows how many
 * members are before it in the full order: no branch, and ties need no special case. */
#include "core/pool.h"
#include "diffence.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

/* One pair's samples, the largest score first. */
typedef struct ranking {
    int32_t *member, *nonmember; /* positions of the samples */
    int32_t *above, *level;      /* of each non-member in this order: members that score more; as much or more */
    int32_t *reached;            /* of each member in this order: non-members that score as much or more */
} ranking;

typedef struct resampling {
    int64_t rows;
    int32_t pairs, members, nonmembers, false_positives, false_negatives;
    const int32_t *member_draws, *nonmember_draws;
    const ranking *rankings;
    uint32_t *scratch; /* of each worker: times drawn, of members and of non-members; members drawn up to a place */
    int64_t *counts;
    _Atomic int64_t bad; /* a row with a draw of a sample that does not exist, -1 where there is none */
} resampling;

/* Counting sort by place. before[p]: how many have a place below p, for p in 0..places. */
static bool sort(int32_t count, const int32_t *place, int32_t places, int32_t *before, int32_t *order) {
    for (int32_t p = 0; p <= places; p++)
        before[p] = 0;
    for (int32_t i = 0; i < count; i++) {
        if (place[i] < 0 || place[i] >= places)
            return false;
        before[place[i] + 1]++;
    }
    for (int32_t p = 0; p < places; p++)
        before[p + 1] += before[p];
    for (int32_t i = 0; i < count; i++) /* leaves before[p] one place further on ... */
        order[before[place[i]]++] = i;
    for (int32_t p = places; p > 0; p--) /* ... which is undone here */
        before[p] = before[p - 1];
    before[0] = 0;
    return true;
}

static bool rank(int32_t members, int32_t nonmembers, const int32_t *member, const int32_t *nonmember, int32_t *before,
                 ranking *ranks) {
    const int32_t places = members + nonmembers;
    int32_t *members_before = before, *nonmembers_before = before + places + 1;
    if (!sort(members, member, places, members_before, ranks->member) ||
        !sort(nonmembers, nonmember, places, nonmembers_before, ranks->nonmember))
        return false;
    for (int32_t j = 0; j < nonmembers; j++) {
        const int32_t place = nonmember[ranks->nonmember[j]];
        ranks->above[j] = members_before[place];
        ranks->level[j] = members_before[place + 1];
    }
    for (int32_t i = 0; i < members; i++)
        ranks->reached[i] = nonmembers_before[member[ranks->member[i]] + 1];
    return true;
}

static bool count_draws(int32_t count, const int32_t *draws, uint32_t *drawn) {
    for (int32_t i = 0; i < count; i++)
        drawn[i] = 0;
    for (int32_t i = 0; i < count; i++) {
        if (draws[i] < 0 || draws[i] >= count)
            return false;
        drawn[draws[i]]++;
    }
    return true;
}

/* The first place from 1 on up to which at least `needed` members were drawn; 1 <= needed <= before[members]. */
static int32_t place_of(int32_t members, const uint32_t *before, uint32_t needed) {
    int32_t low = 1, high = members;
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if (before[middle] >= needed)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void figures(const resampling *all, const ranking *ranks, const uint32_t *member, const uint32_t *nonmember,
                    uint32_t *before, int64_t out[4]) {
    const int32_t members = all->members, nonmembers = all->nonmembers;
    before[0] = 0;
    for (int32_t i = 0; i < members; i++)
        before[i + 1] = before[i] + member[ranks->member[i]];

    int64_t twice = 0, gain = 0, false_positives = 0;
    for (int32_t j = 0; j < nonmembers; j++) {
        const int64_t drawn = nonmember[ranks->nonmember[j]], above = before[ranks->above[j]];
        /* The best threshold is right above a non-member, or above or below all. */
        const int64_t here = above * nonmembers - false_positives * members;
        gain = here > gain ? here : gain;
        twice += drawn * (above + before[ranks->level[j]]);
        false_positives += drawn;
    }

    /* The first non-member that is too many: all members above it are found. */
    int64_t positives = members;
    false_positives = 0;
    for (int32_t j = 0; j < nonmembers; j++) {
        false_positives += nonmember[ranks->nonmember[j]];
        if (false_positives > all->false_positives) {
            positives = before[ranks->above[j]];
            break;
        }
    }
    /* The first member with which enough are found: the non-members as high as it are the false positives. */
    false_positives = 0;
    if (all->false_negatives < members) {
        const int32_t last = place_of(members, before, (uint32_t)(members - all->false_negatives)) - 1;
        const int32_t reached = ranks->reached[last];
        if (reached <= nonmembers / 2) {
            for (int32_t j = 0; j < reached; j++)
                false_positives += nonmember[ranks->nonmember[j]];
        } else {
            false_positives = nonmembers;
            for (int32_t j = reached; j < nonmembers; j++)
                false_positives -= nonmember[ranks->nonmember[j]];
        }
    }
    out[0] = twice;
    out[1] = gain;
    out[2] = positives;
    out[3] = false_positives;
}

static void resample(void *context, int64_t row, int32_t worker) {
    resampling *all = context;
    const int32_t members = all->members, nonmembers = all->nonmembers;
    uint32_t *member = all->scratch + (size_t)worker * (2 * (size_t)members + (size_t)nonmembers + 1);
    uint32_t *nonmember = member + members, *before = nonmember + nonmembers;
    if (!count_draws(members, all->member_draws + row * members, member) ||
        !count_draws(nonmembers, all->nonmember_draws + row * nonmembers, nonmember)) {
        atomic_store(&all->bad, row);
        return;
    }
    for (int32_t pair = 0; pair < all->pairs; pair++) {
        int64_t out[4];
        figures(all, all->rankings + pair, member, nonmember, before, out);
        for (int32_t i = 0; i < 4; i++)
            all->counts[((int64_t)i * all->pairs + pair) * all->rows + row] = out[i];
    }
}

static df_code check(const df_bootstrap *plan, df_error *error) {
    if (plan->rows < 1 || plan->pairs < 1 || plan->members < 1 || plan->nonmembers < 1)
        return df_fail(error, DF_INVALID,
                       "expected at least 1 resample, pair, member and non-member, got %" PRId64 ", %d, %d and %d",
                       plan->rows, plan->pairs, plan->members, plan->nonmembers);
    if (plan->members > INT32_MAX - 1 - plan->nonmembers)
        return df_fail(error, DF_INVALID, "members, nonmembers: expected fewer than 2**31 - 1 samples, got %d and %d",
                       plan->members, plan->nonmembers);
    if (plan->false_positives < 0 || plan->false_negatives < 0)
        return df_fail(error, DF_INVALID, "false_positives, false_negatives: expected counts, got %d and %d",
                       plan->false_positives, plan->false_negatives);
    return DF_OK;
}

df_code df_bootstrap_counts(const df_bootstrap *plan, int32_t threads, int64_t *counts, df_error *error) {
    df_code code = check(plan, error);
    code = code ? code : df_pool_start(threads, error);
    if (code)
        return code;
    const size_t members = (size_t)plan->members, nonmembers = (size_t)plan->nonmembers, pairs = (size_t)plan->pairs;
    const size_t workers = (size_t)(threads < plan->rows ? threads : plan->rows);
    resampling all = {.rows = plan->rows,
                      .pairs = plan->pairs,
                      .members = plan->members,
                      .nonmembers = plan->nonmembers,
                      .false_positives = plan->false_positives,
                      .false_negatives = plan->false_negatives,
                      .member_draws = plan->member_draws,
                      .nonmember_draws = plan->nonmember_draws,
                      .counts = counts,
                      .bad = -1};
    ranking *rankings = calloc(pairs, sizeof *rankings);
    int32_t *order = calloc(pairs, (2 * members + 3 * nonmembers) * sizeof *order);
    int32_t *before = calloc(members + nonmembers + 1, 2 * sizeof *before);
    all.scratch = calloc(workers, (2 * members + nonmembers + 1) * sizeof *all.scratch);
    all.rankings = rankings;
    if (!rankings || !order || !before || !all.scratch)
        code = df_fail(error, DF_OUT_OF_MEMORY, "no memory to resample %d + %d samples of %d pairs", plan->members,
                       plan->nonmembers, plan->pairs);
    for (size_t pair = 0; !code && pair < pairs; pair++) {
        int32_t *own = order + pair * (2 * members + 3 * nonmembers);
        rankings[pair] = (ranking){own, own + members, own + members + nonmembers, own + members + 2 * nonmembers,
                                   own + members + 3 * nonmembers};
        if (!rank(plan->members, plan->nonmembers, plan->member_places + pair * members,
                  plan->nonmember_places + pair * nonmembers, before, &rankings[pair]))
            code = df_fail(error, DF_INVALID, "members, nonmembers: expected places from 0 to %d in pair %zu",
                           plan->members + plan->nonmembers - 1, pair);
    }
    if (!code) {
        df_parallel_for(threads, plan->rows, resample, &all);
        if (all.bad >= 0)
            code =
                df_fail(error, DF_INVALID,
                        "member_draws, nonmember_draws: expected 0 to %d and 0 to %d, got others in resample %" PRId64,
                        plan->members - 1, plan->nonmembers - 1, (int64_t)all.bad);
    }
    free(rankings);
    free(order);
    free(before);
    free(all.scratch);
    return code;
}
