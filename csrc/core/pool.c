#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity, clock_gettime */
#endif
#include "core/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Seconds that both sides look before they go to sleep: waking a thread costs more than many an operation. A network may
 * be hundreds of short regions in a row; and from one call to the next is what Python does in between. */
static const double patience = 200e-6;
enum { LOOKS = 32 /* between two glances at the clock */ };

static struct {
    pthread_mutex_t region; /* held by the caller of a region: one at a time */
    pthread_mutex_t lock;   /* guards the two conditions and `workers` */
    pthread_cond_t wake, done;
    int32_t workers;
    _Atomic uint64_t command; /* number of the region << 32 | its threads: one word, so a worker reads both at once */
    atomic_int busy;          /* workers that are still in the region */
    atomic_llong next;        /* first task that nobody took yet */
    df_task *fn;
    void *context;
    int64_t tasks;
} pool = {.region = PTHREAD_MUTEX_INITIALIZER,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

double df_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Pauses before look number `look`, from 0 on; false when it is time to sleep. `start` is kept for the caller. */
static bool look_again(int64_t look, double *start) {
    if (look == 0)
        *start = df_now();
    else if (look % LOOKS == 0 && df_now() - *start > patience)
        return false;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
    return true;
}

static void work(int32_t worker) {
    for (;;) {
        int64_t task = atomic_fetch_add_explicit(&pool.next, 1, memory_order_relaxed);
        if (task >= pool.tasks)
            return;
        pool.fn(pool.context, task, worker);
    }
}

static void *worker_main(void *argument) {
    const int32_t worker = (int32_t)(intptr_t)argument;
    uint64_t seen = 0; /* regions start at 1, and one that a new worker missed did not count on it */
    for (;;) {
        uint64_t command = seen;
        double start;
        for (int64_t look = 0; command == seen && look_again(look, &start); look++)
            command = atomic_load_explicit(&pool.command, memory_order_acquire);
        if (command == seen) {
            pthread_mutex_lock(&pool.lock);
            while ((command = atomic_load_explicit(&pool.command, memory_order_acquire)) == seen)
                pthread_cond_wait(&pool.wake, &pool.lock);
            pthread_mutex_unlock(&pool.lock);
        }
        seen = command;
        if (worker >= (int32_t)(command & 0xffffffff))
            continue;
        work(worker);
        if (atomic_fetch_sub_explicit(&pool.busy, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&pool.lock);
            pthread_cond_signal(&pool.done);
            pthread_mutex_unlock(&pool.lock);
        }
    }
    return NULL;
}

/* A fork waits for the region that is running, so the child never inherits one half done; the child has none of the
 * threads, so it starts with none. */
static void before_fork(void) {
    pthread_mutex_lock(&pool.region);
    pthread_mutex_lock(&pool.lock);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.region);
}

static void after_fork_in_child(void) {
    pthread_mutex_init(&pool.region, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.workers = 0;
    atomic_store(&pool.command, 0);
}

static int atfork_failure;
static void install_fork_handlers(void) {
    atfork_failure = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static int start_worker(int32_t worker) {
    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    if (failed)
        return failed;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    /* Signals belong to the host's threads: a worker inherits a mask that blocks them all. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    failed = pthread_create(&thread, &attributes, worker_main, (void *)(intptr_t)worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failed;
}

df_code df_check_threads(int32_t threads, df_error *error) {
    if (threads < 1 || threads > DF_MAX_THREADS)
        return df_fail(error, DF_INVALID, "threads must be in 1..%d, got %d", DF_MAX_THREADS, threads);
    return DF_OK;
}

df_code df_pool_start(int32_t threads, df_error *error) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const df_code code = df_check_threads(threads, error);
    if (code || threads == 1)
        return code;
    pthread_once(&once, install_fork_handlers);
    if (atfork_failure)
        return df_fail(error, DF_SYSTEM, "pthread_atfork failed: %s", strerror(atfork_failure));
    int failed = 0;
    pthread_mutex_lock(&pool.region); /* a new worker must not meet a region that does not count on it */
    pthread_mutex_lock(&pool.lock);
    while (!failed && pool.workers < threads - 1) {
        failed = start_worker(pool.workers + 1);
        pool.workers += !failed;
    }
    const int32_t workers = pool.workers;
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.region);
    if (failed)
        return df_fail(error, DF_SYSTEM, "cannot start thread %d of %d: %s", workers + 2, threads, strerror(failed));
    return DF_OK;
}

void df_parallel_for(int32_t threads, int64_t tasks, df_task *fn, void *context) {
    if (threads > tasks)
        threads = (int32_t)tasks;
    if (threads <= 1) {
        for (int64_t task = 0; task < tasks; task++)
            fn(context, task, 0);
        return;
    }
    pthread_mutex_lock(&pool.region);
    pthread_mutex_lock(&pool.lock);
    if (threads > pool.workers + 1)
        threads = pool.workers + 1;
    pool.fn = fn;
    pool.context = context;
    pool.tasks = tasks;
    atomic_store_explicit(&pool.next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool.busy, threads - 1, memory_order_relaxed);
    const uint64_t region = (atomic_load_explicit(&pool.command, memory_order_relaxed) >> 32) + 1;
    atomic_store_explicit(&pool.command, region << 32 | (uint64_t)threads, memory_order_release);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    work(0);
    double start;
    int64_t look = 0;
    while (atomic_load_explicit(&pool.busy, memory_order_acquire) && look_again(look, &start))
        look++;
    pthread_mutex_lock(&pool.lock);
    while (atomic_load_explicit(&pool.busy, memory_order_acquire))
        pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.region);
}

static int32_t usable_processors(void) {
#if defined(__linux__)
    /* The kernel may know more processors than a cpu_set_t holds: grow until it fits. */
    for (int processors = 1024; processors <= 1 << 20; processors *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)processors);
        if (!set)
            break;
        const size_t size = CPU_ALLOC_SIZE((size_t)processors);
        const int failed = sched_getaffinity(0, size, set);
        const int reason = errno;
        const int count = failed ? 0 : CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (count > 0)
            return count;
        if (reason != EINVAL)
            break;
    }
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int32_t)online : 1;
}

df_code df_default_threads(int32_t *threads, df_error *error) {
    const char *text = getenv("DIFFENCE_NUM_THREADS");
    if (!text) {
        const int32_t processors = usable_processors();
        *threads = processors < DF_MAX_THREADS ? processors : DF_MAX_THREADS;
        return DF_OK;
    }
    /* strtol would take blanks, signs and an empty text. */
    char *end = NULL;
    const long value = *text >= '0' && *text <= '9' ? strtol(text, &end, 10) : 0;
    if (value < 1 || value > DF_MAX_THREADS || *end)
        return df_fail(error, DF_INVALID, "DIFFENCE_NUM_THREADS must be a whole number in 1..%d, got '%.40s'",
                       DF_MAX_THREADS, text);
    *threads = (int32_t)value;
    return DF_OK;
}
