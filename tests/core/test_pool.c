/* The pool by itself: every task once, by a worker of its own; several callers; forks; threads that cannot be had. */
#include "check.h"
#include "core/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TASKS = 1000, WORKERS = 8 };

typedef struct job {
    int32_t done[TASKS];       /* by each task alone: a second run of a task would be a race, and count 2 */
    atomic_bool busy[WORKERS]; /* two tasks with the same worker at once would share its scratch */
    atomic_int shared, out_of_range;
    int32_t threads;
} job;

static void count_task(void *context, int64_t task, int32_t worker) {
    job *j = context;
    if (worker < 0 || worker >= j->threads) {
        j->out_of_range++;
        return;
    }
    j->shared += atomic_exchange(&j->busy[worker], true);
    j->done[task]++;
    atomic_store(&j->busy[worker], false);
}

static bool run_once(int32_t threads, int64_t tasks) {
    job j = {.threads = threads};
    df_parallel_for(threads, tasks, count_task, &j);
    bool right = !j.shared && !j.out_of_range;
    for (int64_t i = 0; i < TASKS; i++)
        right &= j.done[i] == (i < tasks);
    return right;
}

static void *run_often(void *context) {
    bool *right = context;
    *right = true;
    for (int i = 0; i < 300; i++)
        *right &= run_once(1 + i % WORKERS, i * 7 % TASKS);
    return NULL;
}

static void test_regions(void) {
    df_error error;
    CHECK(run_once(4, TASKS), "without workers the caller does it all");
    for (int32_t threads = 1; threads <= WORKERS; threads++) {
        CHECK(!df_pool_start(threads, &error), "%s", error.message);
        for (int64_t tasks = 0; tasks <= TASKS; tasks += 1 + tasks / 2)
            CHECK(run_once(threads, tasks), "%d threads, %d tasks", threads, (int)tasks);
    }
    usleep(20000); /* long enough for the workers to have gone to sleep */
    CHECK(run_once(WORKERS, TASKS), "after sleeping");
    CHECK(df_pool_start(0, &error) == DF_INVALID && df_pool_start(DF_MAX_THREADS + 1, &error) == DF_INVALID, "bounds");
}

static void sleep_task(void *context, int64_t task, int32_t worker) {
    (void)context, (void)task, (void)worker;
    usleep(20000);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void test_really_parallel(void) {
    const double start = seconds();
    df_parallel_for(WORKERS, 4 * WORKERS, sleep_task, NULL); /* 0.64 s in a row, 0.08 s side by side */
    CHECK(seconds() - start < 0.4, "%g s", seconds() - start);
}

static void test_callers(void) {
    bool right[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, run_often, &right[i]);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        CHECK(right[i], "caller %d", i);
    }
}

static int in_child(int (*fn)(void)) {
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0)
        _exit(fn());
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int use_in_child(void) {
    bool right = run_once(4, TASKS) && !df_pool_start(4, NULL);
    bool often;
    run_often(&often);
    return right && often ? 0 : 1;
}

static int use_in_grandchild(void) {
    return use_in_child() + in_child(use_in_child);
}

static void test_fork(void) {
    bool right;
    pthread_t thread;
    pthread_create(&thread, NULL, run_often, &right);
    for (int i = 0; i < 5; i++)
        CHECK(in_child(use_in_grandchild) == 0, "fork %d", i);
    pthread_join(thread, NULL);
    CHECK(right && run_once(WORKERS, TASKS), "the parent goes on");
}

static volatile sig_atomic_t signalled_elsewhere;
static pthread_t main_thread;

static void note_thread(int signal_number) {
    (void)signal_number;
    signalled_elsewhere |= !pthread_equal(pthread_self(), main_thread);
}

/* A signal to the process must reach the host's threads, as Python's Ctrl-C needs. */
static int signals(void) {
    main_thread = pthread_self();
    signal(SIGUSR1, note_thread);
    if (df_pool_start(WORKERS, NULL))
        return 2;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    kill(getpid(), SIGUSR1); /* any thread that does not block it would take it now */
    usleep(20000);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return signalled_elsewhere ? 1 : 0;
}

static int too_little_memory(void) {
    const struct rlimit limit = {1 << 28, 1 << 28}; /* stacks are 8 MiB each */
    df_error error = {0};
    if (setrlimit(RLIMIT_AS, &limit))
        return 2;
    if (df_pool_start(DF_MAX_THREADS, &error) != DF_SYSTEM || !strstr(error.message, "of 1024"))
        return 3;
    return run_once(WORKERS, TASKS) ? 0 : 4; /* with those that could be started */
}

static void test_failure(void) {
    if (SANITIZED)
        SKIP("threads that cannot be started: a sanitizer needs the address space itself");
    else
        CHECK(in_child(too_little_memory) == 0, "too little memory for the stacks");
}

static int one_processor(void) {
    cpu_set_t all, one;
    int32_t threads = 0;
    if (sched_getaffinity(0, sizeof all, &all))
        return 2;
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    return sched_setaffinity(0, sizeof one, &one) || df_default_threads(&threads, NULL) || threads != 1;
}

static void test_default_threads(void) {
    static const char *const bad[] = {"",   "0",  "-1", " 2", "2 ", "1.5", "two", "1025", "99999999999999999999",
                                      "+3", "0x2"};
    df_error error;
    int32_t threads = 0;
    unsetenv("DIFFENCE_NUM_THREADS");
    CHECK(!df_default_threads(&threads, &error) && threads >= 1 && threads <= sysconf(_SC_NPROCESSORS_CONF), "%d",
          threads);
    CHECK(in_child(one_processor) == 0, "the processors this process may run on");
    setenv("DIFFENCE_NUM_THREADS", "3", 1);
    CHECK(!df_default_threads(&threads, &error) && threads == 3, "%d", threads);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("DIFFENCE_NUM_THREADS", bad[i], 1);
        CHECK(df_default_threads(&threads, &error) == DF_INVALID && strstr(error.message, "DIFFENCE_NUM_THREADS"),
              "'%s'", bad[i]);
    }
    unsetenv("DIFFENCE_NUM_THREADS");
}

int main(void) {
    test_regions();
    test_really_parallel();
    test_callers();
    test_fork();
    CHECK(in_child(signals) == 0, "workers take no signals");
    test_failure();
    test_default_threads();
    return check_report("pool");
}
