/* One pool of worker threads for the whole process: lazily started, asleep when idle, started afresh after a fork. */
#ifndef DIFFENCE_POOL_H
#define DIFFENCE_POOL_H

#include "diffence.h"

enum { DF_MAX_THREADS = 1024 };

/* One of the tasks 0..tasks-1 of a parallel region. `worker` is 0..threads-1, and no two tasks that run at the same
 * time have the same one: it picks a worker's own scratch memory. A task must not start a region of its own. */
typedef void df_task(void *context, int64_t task, int32_t worker);

/* Seconds by a clock that never goes back. */
double df_now(void);

/* DF_INVALID where threads is outside 1..DF_MAX_THREADS. */
df_code df_check_threads(int32_t threads, df_error *error);

/* Makes sure that regions of `threads` threads (the caller counts) find their workers. Call it before the first region
 * of every piece of work: after a fork the child has no workers. DF_SYSTEM where a thread cannot be started. */
df_code df_pool_start(int32_t threads, df_error *error);

/* Calls fn for every task on up to `threads` threads, the calling one among them, and returns when all are done. Which
 * thread gets which task is not determined, so a result must depend on the task alone. Never fails: with fewer workers
 * than asked for the work takes longer. Regions of several callers run one after the other. */
void df_parallel_for(int32_t threads, int64_t tasks, df_task *fn, void *context);

#endif
