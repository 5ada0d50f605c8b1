#include "emulator.h"

#include <algorithm>
#include <inttypes.h>
#include <map>
#include <mutex>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <vector>

#if !defined(__x86_64__) || !defined(__linux__)
#define EMULATOR_UCONTEXT
#endif

#ifdef EMULATOR_UCONTEXT
#include <ucontext.h> /* a system call at each switch */
#else
/* Keeps what a called function has to keep, and goes on where the other stack's switch was called. The jump, in place
 * of a return, is for the processor's prediction. */
extern "C" void emulator_switch(void **from, void *to);
asm(R"(
    .text
    .p2align 4
    .type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
    .size emulator_switch, .-emulator_switch
)");
#endif

namespace {

enum { WARP = 32, MOST_THREADS = 1024, MOST_SHARED = 227 << 10, STACK = 64 << 10, SIGNAL_STACK = 64 << 10 };
const unsigned char UNWRITTEN = 0xff;

/* ---------------------------------------------------------------- memory */

size_t page_size() {
    static const size_t size = (size_t)sysconf(_SC_PAGESIZE);
    return size;
}

size_t round_up(size_t value, size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

/* The first byte from `at` to `end` that is not as it was filled, or NULL. */
const unsigned char *find_written(const unsigned char *at, const unsigned char *end) {
    for (; at < end && ((uintptr_t)at & 7); at++)
        if (*at != UNWRITTEN)
            return at;
    for (uint64_t word; end - at >= 8; at += 8) {
        memcpy(&word, at, sizeof word);
        if (word != UINT64_MAX)
            break;
    }
    for (; at < end; at++)
        if (*at != UNWRITTEN)
            return at;
    return NULL;
}

struct allocation {
    unsigned char *map; /* an unreadable page, the data's pages, an unreadable page */
    size_t map_bytes, bytes;
};

std::mutex memory_lock; /* of the three below */
std::map<unsigned char *, allocation> allocations;
size_t allocated, allocation_limit;

/* Under the lock: whether all of the bytes lie in one allocation. */
bool inside_allocation(const void *memory, size_t bytes) {
    auto after = allocations.upper_bound((unsigned char *)memory);
    if (after == allocations.begin())
        return false;
    const auto &found = *std::prev(after);
    const size_t offset = (size_t)((const unsigned char *)memory - found.first);
    return offset <= found.second.bytes && bytes <= found.second.bytes - offset;
}

/* ---------------------------------------------------------------- the threads of a block */

/* What a thread waits for. The warp's operations are from SYNC_WARP on. */
enum operation {
    NOTHING,
    ENDED,
    BARRIER,
    SYNC_WARP,
    SHUFFLE_4,
    SHUFFLE_8,
    SHUFFLE_XOR_4,
    SHUFFLE_XOR_8,
    LOAD,
    LOAD_TRANSPOSED,
    MULTIPLY_BF16,
    MULTIPLY_FP16
};
const char *const operation_names[] = {
    "nothing",
    "its end",
    "__syncthreads",
    "__syncwarp",
    "__shfl_sync of 4 bytes",
    "__shfl_sync of 8 bytes",
    "__shfl_xor_sync of 4 bytes",
    "__shfl_xor_sync of 8 bytes",
    "load_matrices",
    "load_matrices_transposed",
    "multiply_add<bf16>",
    "multiply_add<fp16>",
};

struct pending_copy {
    unsigned char *to;
    const unsigned char *from; /* NULL: zeros */
    unsigned group;
};

/* What a lane brings to a warp's operation. */
struct request {
    uint64_t *bits; /* shuffle: of the value, then of the result */
    int lane;
    float *d; /* multiply_add */
    const uint32_t *a;
    uint32_t b[2];
    uint32_t *r; /* load_matrices: the result */
    uint16_t row[8];
};

/* A thread of a block: a place to run, used again by the next block. */
struct fiber {
#ifdef EMULATOR_UCONTEXT
    ucontext_t context;
#else
    void *stack_pointer;
#endif
    uint3 index;
    unsigned number;
    operation waits_for;
    uint32_t mask; /* of the lanes it waits for */
    request asks;
    unsigned groups; /* of copies that are committed */
    std::vector<pending_copy> copies;
};

/* Lanes of a warp that wait for each other. Those of one mask may be inside a wider mask that others wait with. */
struct gathering {
    operation what;
    uint32_t mask, arrived;
};
struct warp {
    uint32_t lanes, ended; /* the lanes that exist; those that have returned */
    int gatherings;
    gathering open[WARP];
};

/* The launch that runs: one at a time. */
std::mutex launch_lock;
uint64_t seed, launches;
const char *kernel_name;
emulator_call kernel_call;
void *kernel_closure;
unsigned threads;
bool running;
pthread_t host_thread;

fiber fibers[MOST_THREADS];
unsigned char *stacks; /* of each fiber an unreadable page and STACK bytes */
unsigned fibers_made;
fiber *current;
warp warps[MOST_THREADS / WARP];
unsigned waiting_at_barrier, ended;

/* Fibers that can go on, a ring. */
fiber *ready[MOST_THREADS];
unsigned ready_first, ready_count;

uint64_t random_state;
unsigned eagerness; /* of 256: how often a warp that can go on goes first, before warps that waited longer */

unsigned char *shared_map, *shared_memory; /* shared_map: an unreadable page, SHARED_ROOM, an unreadable page */
size_t shared_bytes, shared_room;

#ifdef EMULATOR_UCONTEXT
ucontext_t host_context;
#else
void *host_stack_pointer;
#endif

uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

uint32_t random_bits() {
    random_state = random_state * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(random_state >> 33);
}

/* ---------------------------------------------------------------- messages */

void print_launch() {
    fprintf(stderr, "emulator: kernel %s, launch %" PRIu64 ", seed %" PRIu64, kernel_name, launches, seed);
    fprintf(stderr, " (grid %u %u %u, block %u %u %u, %zu bytes shared)", gridDim.x, gridDim.y, gridDim.z, blockDim.x,
            blockDim.y, blockDim.z, shared_bytes);
}

void print_thread(const fiber *thread) {
    fprintf(stderr, ", block (%u, %u, %u)", blockIdx.x, blockIdx.y, blockIdx.z);
    if (thread)
        fprintf(stderr, ", thread (%u, %u, %u)", thread->index.x, thread->index.y, thread->index.z);
    fprintf(stderr, ": ");
}

__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_launch();
    print_thread(current);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

__attribute__((noreturn, format(printf, 1, 2))) void fail_outside(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "emulator: ");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

/* Nobody can go on. One line for each thing that threads wait for. */
__attribute__((noreturn)) void fail_deadlock() {
    print_launch();
    print_thread(NULL);
    fprintf(stderr, "its threads wait for each other forever; %u of %u have ended\n", ended, threads);
    for (int what = BARRIER; what <= MULTIPLY_FP16; what++) {
        const fiber *first = NULL;
        unsigned count = 0;
        for (unsigned i = 0; i < threads; i++)
            if (fibers[i].waits_for == what) {
                first = count++ ? first : &fibers[i];
            }
        if (!count)
            continue;
        fprintf(stderr, "emulator: %u at %s", count, operation_names[what]);
        if (what != BARRIER)
            fprintf(stderr, " (mask 0x%08x)", first->mask);
        fprintf(stderr, ", first thread (%u, %u, %u)\n", first->index.x, first->index.y, first->index.z);
    }
    abort();
}

/* ---------------------------------------------------------------- switching */

__attribute__((always_inline)) inline void switch_to(fiber *next) {
    fiber *const before = current;
    current = next;
    threadIdx = next->index;
#ifdef EMULATOR_UCONTEXT
    swapcontext(before ? &before->context : &host_context, &next->context);
#else
    emulator_switch(before ? &before->stack_pointer : &host_stack_pointer, next->stack_pointer);
#endif
}

void switch_to_host() {
    fiber *const before = current;
    current = NULL;
#ifdef EMULATOR_UCONTEXT
    swapcontext(&before->context, &host_context);
#else
    emulator_switch(&before->stack_pointer, host_stack_pointer);
#endif
}

/* The current fiber has to wait, or has put itself among the others. Returns when its turn comes. Inline, and the last
 * thing that its callers do, for after a switch the processor predicts no return right. */
__attribute__((always_inline)) inline void give_way() {
    if (!ready_count) {
        if (ended < threads)
            fail_deadlock();
        switch_to_host();
        return;
    }
    fiber *const next = ready[ready_first];
    ready_first = (ready_first + 1) % MOST_THREADS;
    ready_count--;
    if (next != current)
        switch_to(next);
}

/* Lets these go on, given in ascending order; before or after those that can go on already. */
void make_ready(fiber **list, unsigned count) {
    bool first = true;
    if (seed == 1) {
        std::reverse(list, list + count);
    } else if (seed) {
        for (unsigned i = count; i > 1; i--)
            std::swap(list[i - 1], list[(uint64_t)random_bits() * i >> 31]);
        first = (random_bits() & 255) < eagerness;
    }
    if (first)
        ready_first = (ready_first + MOST_THREADS - count) % MOST_THREADS;
    const unsigned start = first ? ready_first : ready_first + ready_count;
    for (unsigned i = 0; i < count; i++) {
        list[i]->waits_for = NOTHING;
        ready[(start + i) % MOST_THREADS] = list[i];
    }
    ready_count += count;
}

void make_ready_if(operation what) {
    static fiber *list[MOST_THREADS];
    unsigned count = 0;
    for (unsigned i = 0; i < threads; i++)
        if (fibers[i].waits_for == what)
            list[count++] = &fibers[i];
    make_ready(list, count);
}

void open_barrier() {
    waiting_at_barrier = 0;
    make_ready_if(BARRIER);
}

void end_thread() {
    const unsigned number = current->number, lane = number % WARP;
    warp *const w = &warps[number / WARP];
    for (int i = 0; i < w->gatherings; i++)
        if (w->open[i].mask >> lane & 1)
            fail("the thread has ended, and lanes of its warp wait for it at %s (mask 0x%08x)",
                 operation_names[w->open[i].what], w->open[i].mask);
    w->ended |= 1u << lane;
    current->waits_for = ENDED;
    current->copies.clear(); /* nobody will see them */
    ended++;
    if (waiting_at_barrier && waiting_at_barrier + ended == threads)
        open_barrier();
    give_way();
}

/* A fiber's whole life: one turn for each block. */
void fiber_main() {
    for (;;) {
        kernel_call(kernel_closure);
        end_thread();
    }
}

void make_fibers(unsigned count) {
    const size_t pitch = page_size() + STACK;
    if (!stacks) {
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void *const map = mmap(NULL, MOST_THREADS * pitch, PROT_NONE, flags, -1, 0);
        if (map == MAP_FAILED)
            fail_outside("no room for the threads' stacks");
        stacks = (unsigned char *)map;
    }
    for (; fibers_made < count; fibers_made++) {
        fiber *const f = &fibers[fibers_made];
        unsigned char *const stack = stacks + fibers_made * pitch + page_size();
        if (mprotect(stack, STACK, PROT_READ | PROT_WRITE))
            fail_outside("no room for the threads' stacks");
        /* Stacks start at different places in their pages, or a warp's would push each other out of the cache. */
        const size_t size = STACK - fibers_made % WARP * 128;
#ifdef EMULATOR_UCONTEXT
        getcontext(&f->context);
        f->context.uc_stack.ss_sp = stack;
        f->context.uc_stack.ss_size = size;
        f->context.uc_link = NULL;
        makecontext(&f->context, fiber_main, 0);
#else
        void **top = (void **)(stack + size);
        *--top = NULL; /* where fiber_main would return to */
        *--top = (void *)fiber_main;
        for (int i = 0; i < 6; i++)
            *--top = NULL;
        f->stack_pointer = top;
#endif
    }
}

/* ---------------------------------------------------------------- operations of a warp */

/* lanes: the fibers of a whole warp, those of the mask with what they ask for. */
void shuffle(fiber *lanes, bool exclusive_or, uint32_t mask) {
    uint64_t values[WARP];
    for (int i = 0; i < WARP; i++)
        values[i] = mask >> i & 1 ? *lanes[i].asks.bits : UINT64_MAX;
    for (int i = 0; i < WARP; i++)
        if (mask >> i & 1) {
            const request &mine = lanes[i].asks;
            const int from = exclusive_or ? i ^ mine.lane : mine.lane & (WARP - 1);
            *mine.bits = values[from < 0 || from >= WARP ? i : from];
        }
}

void distribute_matrices(fiber *lanes, bool transposed) {
    for (int lane = 0; lane < WARP; lane++)
        for (int m = 0; m < 4; m++) {
            uint16_t pair[2];
            for (int i = 0; i < 2; i++) {
                const int row = lane / 4, column = lane % 4 * 2 + i;
                pair[i] = lanes[8 * m + (transposed ? column : row)].asks.row[transposed ? row : column];
            }
            lanes[lane].asks.r[m] = (uint32_t)pair[1] << 16 | pair[0];
        }
}

typedef double two_columns __attribute__((vector_size(2 * sizeof(double))));

template <typename T> double low_half(uint32_t two) {
    return (double)to_float(T{(uint16_t)two});
}

/* Written for speed: convolutions call little else. */
template <typename T> void multiply(fiber *lanes) {
    double a[16][16];
    two_columns b[16][4];
    for (int lane = 0; lane < WARP; lane++) {
        const request &from = lanes[lane].asks;
        const int row = lane / 4, two = lane % 4 * 2;
        for (int i = 0; i < 4; i++) {
            double *const to = &a[row + i % 2 * 8][two + i / 2 * 8];
            to[0] = low_half<T>(from.a[i]);
            to[1] = low_half<T>(from.a[i] >> 16);
        }
        for (int i = 0; i < 2; i++) {
            b[two + 8 * i][row / 2][row % 2] = low_half<T>(from.b[i]);
            b[two + 8 * i + 1][row / 2][row % 2] = low_half<T>(from.b[i] >> 16);
        }
    }
    for (int row = 0; row < 16; row++) {
        float *of[4]; /* the four lanes' columns */
        for (int i = 0; i < 4; i++)
            of[i] = lanes[row % 8 * 4 + i].asks.d + row / 8 * 2;
        two_columns sum0 = {of[0][0], of[0][1]}, sum1 = {of[1][0], of[1][1]};
        two_columns sum2 = {of[2][0], of[2][1]}, sum3 = {of[3][0], of[3][1]};
        for (int k = 0; k < 16; k++) {
            sum0 += a[row][k] * b[k][0];
            sum1 += a[row][k] * b[k][1];
            sum2 += a[row][k] * b[k][2];
            sum3 += a[row][k] * b[k][3];
        }
        const two_columns sums[4] = {sum0, sum1, sum2, sum3};
        for (int i = 0; i < 4; i++) {
            of[i][0] = (float)sums[i][0];
            of[i][1] = (float)sums[i][1];
        }
    }
}

void perform(fiber *lanes, operation what, uint32_t mask) {
    switch (what) {
    case SHUFFLE_4:
    case SHUFFLE_8:
        shuffle(lanes, false, mask);
        break;
    case SHUFFLE_XOR_4:
    case SHUFFLE_XOR_8:
        shuffle(lanes, true, mask);
        break;
    case LOAD:
        distribute_matrices(lanes, false);
        break;
    case LOAD_TRANSPOSED:
        distribute_matrices(lanes, true);
        break;
    case MULTIPLY_BF16:
        multiply<bf16>(lanes);
        break;
    case MULTIPLY_FP16:
        multiply<fp16>(lanes);
        break;
    default: /* SYNC_WARP: nothing but the waiting */
        break;
    }
}

/* To wait for the lanes of the mask, after which comes give_way; the last of them does it for all. */
__attribute__((noinline)) void gather(operation what, uint32_t mask) {
    const unsigned number = current->number, lane = number % WARP;
    warp *const w = &warps[number / WARP];
    const uint32_t bit = 1u << lane;
    if (!(mask & bit))
        fail("%s with a mask (0x%08x) without the calling lane, %u", operation_names[what], mask, lane);
    if (what >= LOAD && w->lanes != 0xffffffff)
        fail("%s in a warp of less than %d threads", operation_names[what], WARP);
    mask &= w->lanes;
    if (mask & w->ended)
        fail("%s (mask 0x%08x) waits for lanes that have ended (0x%08x)", operation_names[what], mask, mask & w->ended);
    int found = -1;
    for (int i = 0; i < w->gatherings; i++) {
        const gathering *const other = &w->open[i];
        if (other->what == what && other->mask == mask)
            found = i;
        else if ((other->mask & bit) && (mask & other->arrived))
            fail("%s (mask 0x%08x), where lanes 0x%08x of its warp wait for it at %s (mask 0x%08x)",
                 operation_names[what], mask, other->arrived, operation_names[other->what], other->mask);
    }
    if (found < 0) {
        found = w->gatherings++;
        w->open[found] = {what, mask, 0};
    }
    w->open[found].arrived |= bit;
    current->waits_for = what;
    current->mask = mask;
    if (w->open[found].arrived == mask) {
        w->open[found] = w->open[--w->gatherings];
        perform(current - lane, what, mask);
        fiber *list[WARP];
        unsigned count = 0;
        for (unsigned i = 0; i < WARP; i++)
            if (mask >> i & 1)
                list[count++] = current - lane + i;
        make_ready(list, count);
    }
}

/* ---------------------------------------------------------------- shared memory */

/* Of a launch: at the end of the room, before an unreadable page, as far as the alignment lets it. */
void size_shared(size_t bytes) {
    const size_t page = page_size();
    if (!shared_map) {
        shared_room = round_up(MOST_SHARED, page);
        void *const map = mmap(NULL, shared_room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED)
            fail_outside("no room for the shared memory");
        shared_map = (unsigned char *)map;
    }
    unsigned char *const end = shared_map + page + shared_room;
    unsigned char *const start = end - round_up(bytes, 1024);
    const size_t readable = round_up((size_t)(end - start), page);
    if (start != shared_memory && (mprotect(shared_map, page + shared_room - readable, PROT_NONE) ||
                                   (readable && mprotect(end - readable, readable, PROT_READ | PROT_WRITE))))
        fail_outside("no room for the shared memory");
    shared_memory = start;
    shared_bytes = bytes;
}

unsigned char *shared_first() { /* of its first page */
    return shared_memory - (uintptr_t)shared_memory % page_size();
}

void fill_shared() {
    memset(shared_first(), UNWRITTEN, (size_t)(shared_map + page_size() + shared_room - shared_first()));
}

void check_shared() {
    const unsigned char *at = find_written(shared_first(), shared_memory);
    if (!at)
        at = find_written(shared_memory + round_up(shared_bytes, 16), shared_map + page_size() + shared_room);
    if (at)
        fail("shared memory was written at offset %td of %zu bytes", at - shared_memory, shared_bytes);
}

/* 16 bytes that an instruction reads or writes in shared memory. */
void check_shared_access(const char *what, const void *memory) {
    const uintptr_t at = (uintptr_t)memory, start = (uintptr_t)shared_memory;
    if (at % 16)
        fail("%s: the shared address %p is not aligned to 16 bytes", what, memory);
    if (at < start || at + 16 > start + round_up(shared_bytes, 16))
        fail("%s: the address %p is outside of the %zu bytes of shared memory", what, memory, shared_bytes);
}

/* ---------------------------------------------------------------- accesses to memory that is not there */

alignas(16) unsigned char signal_stack[SIGNAL_STACK];
struct sigaction segv_before, bus_before;

void describe(const unsigned char *at) {
    const size_t page = page_size();
    if (at >= shared_map && at < shared_map + shared_room + 2 * page)
        fprintf(stderr, "offset %td of %zu bytes of shared memory\n", at - shared_memory, shared_bytes);
    else if (at >= stacks && at < stacks + MOST_THREADS * (page + STACK))
        fprintf(stderr, "beyond a thread's stack\n");
    else if (memory_lock.try_lock()) {
        for (const auto &found : allocations)
            if (at >= found.second.map && at < found.second.map + found.second.map_bytes) {
                fprintf(stderr, "offset %td of an allocation of %zu bytes\n", at - found.first, found.second.bytes);
                return;
            }
        fprintf(stderr, "nothing that was allocated here\n");
    }
}

/* Says where, and lets the access end the process as it would have. */
void report_fault(int number, siginfo_t *info, void *) {
    sigaction(SIGSEGV, &segv_before, NULL);
    sigaction(SIGBUS, &bus_before, NULL);
    if (!running || !pthread_equal(pthread_self(), host_thread))
        return;
    print_launch();
    print_thread(current);
    fprintf(stderr, "access to %p, signal %d: ", info->si_addr, number);
    describe((const unsigned char *)info->si_addr);
}

/* ---------------------------------------------------------------- launches */

void check_launch(const char *name, dim3 grid, dim3 block, size_t shared) {
    const uint64_t most_x = INT32_MAX, most = 65535;
    if (!grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z)
        fail_outside("kernel %s: no threads: grid %u %u %u, block %u %u %u", name, grid.x, grid.y, grid.z, block.x,
                     block.y, block.z);
    if (grid.x > most_x || grid.y > most || grid.z > most)
        fail_outside("kernel %s: grid %u %u %u is too large", name, grid.x, grid.y, grid.z);
    if (block.x > MOST_THREADS || block.y > MOST_THREADS || block.z > 64 ||
        (uint64_t)block.x * block.y * block.z > MOST_THREADS)
        fail_outside("kernel %s: block %u %u %u is too large", name, block.x, block.y, block.z);
    if (shared > MOST_SHARED)
        fail_outside("kernel %s: %zu bytes of shared memory, of at most %d", name, shared, MOST_SHARED);
}

void start_block(uint64_t number) {
    blockIdx.x = (unsigned)(number % gridDim.x);
    blockIdx.y = (unsigned)(number / gridDim.x % gridDim.y);
    blockIdx.z = (unsigned)(number / gridDim.x / gridDim.y);
    random_state = mix(mix(seed) ^ number);
    eagerness = random_bits() % 257;
    fill_shared();
    waiting_at_barrier = ended = 0;
    for (unsigned i = 0; i < threads; i++) {
        fiber *const f = &fibers[i];
        f->index.x = i % blockDim.x;
        f->index.y = i / blockDim.x % blockDim.y;
        f->index.z = i / blockDim.x / blockDim.y;
        f->number = i;
        f->waits_for = BARRIER; /* as if there had been one */
        f->groups = 0;
    }
    for (unsigned i = 0; i < threads; i += WARP) {
        warps[i / WARP].lanes = threads - i < WARP ? 0xffffffff >> (WARP - (threads - i)) : 0xffffffff;
        warps[i / WARP].ended = 0;
        warps[i / WARP].gatherings = 0;
    }
    make_ready_if(BARRIER);
}

uint64_t common_factor(uint64_t a, uint64_t b) {
    while (b) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

void run_blocks() {
    const uint64_t blocks = (uint64_t)gridDim.x * gridDim.y * gridDim.z;
    /* A step that has no factor in common with their number meets every block once. */
    uint64_t at = 0, step = 1;
    if (seed == 1) {
        at = step = blocks - 1;
    } else if (seed) {
        at = mix(seed) % blocks;
        step = mix(seed + 1) % blocks;
        while (common_factor(blocks, step) != 1)
            step = (step + 1) % blocks;
    }
    for (uint64_t i = 0; i < blocks; i++) {
        start_block(at);
        give_way();
        check_shared();
        at = (at + step) % blocks;
    }
}

} // namespace

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

void emulator_seed(uint64_t value) {
    const std::lock_guard<std::mutex> lock(launch_lock);
    seed = value;
}

void emulator_run(const char *name, dim3 grid, dim3 block, size_t shared, emulator_call call, void *closure) {
    check_launch(name, grid, block, shared);
    const std::lock_guard<std::mutex> lock(launch_lock);
    launches++;
    kernel_name = name;
    kernel_call = call;
    kernel_closure = closure;
    gridDim = grid;
    blockDim = block;
    threads = block.x * block.y * block.z;
    make_fibers(threads);
    size_shared(shared);

    stack_t stack = {}, stack_before;
    stack.ss_sp = signal_stack;
    stack.ss_size = sizeof signal_stack;
    sigaltstack(&stack, &stack_before);
    struct sigaction action = {};
    action.sa_sigaction = report_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    host_thread = pthread_self();
    running = true;
    sigaction(SIGSEGV, &action, &segv_before);
    sigaction(SIGBUS, &action, &bus_before);
    run_blocks();
    sigaction(SIGSEGV, &segv_before, NULL);
    sigaction(SIGBUS, &bus_before, NULL);
    running = false;
    sigaltstack(&stack_before, NULL);
}

unsigned char *emulator_shared() {
    return shared_memory;
}

void __syncthreads() {
    current->waits_for = BARRIER;
    if (++waiting_at_barrier + ended == threads)
        open_barrier();
    give_way();
}

void __syncwarp(uint32_t mask) {
    gather(SYNC_WARP, mask);
    give_way();
}

void emulator_shuffle(bool exclusive_or, size_t size, uint32_t mask, uint64_t *bits, int lane) {
    current->asks.bits = bits;
    current->asks.lane = lane;
    gather(exclusive_or ? size == 8 ? SHUFFLE_XOR_8 : SHUFFLE_XOR_4 : size == 8 ? SHUFFLE_8 : SHUFFLE_4, mask);
    give_way();
}

/* The row is read when its lane comes here: only __syncwarp would make it wait for what other lanes write. */
void emulator_load_matrices(bool transposed, uint32_t r[4], const void *row) {
    check_shared_access("load_matrices", row);
    current->asks.r = r;
    memcpy(current->asks.row, row, sizeof current->asks.row);
    gather(transposed ? LOAD_TRANSPOSED : LOAD, 0xffffffff);
    give_way();
}

void emulator_multiply_add(bool half, float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    current->asks.d = d;
    current->asks.a = a;
    current->asks.b[0] = b0;
    current->asks.b[1] = b1;
    gather(half ? MULTIPLY_FP16 : MULTIPLY_BF16, 0xffffffff);
    give_way();
}

uint32_t shared_address(const void *shared) {
    const uintptr_t at = (uintptr_t)shared, start = (uintptr_t)shared_memory;
    if (at < start || at > start + shared_bytes)
        fail("shared_address: %p is outside of the %zu bytes of shared memory", shared, shared_bytes);
    return (uint32_t)(at - start);
}

void copy_async(void *shared, const void *global, bool valid) {
    check_shared_access("copy_async", shared);
    if ((uintptr_t)global % 16)
        fail("copy_async: the source %p is not aligned to 16 bytes", global);
    if (valid)
        (void)*(const volatile unsigned char *)global; /* a fault here, and not where it is waited for */
    memset(shared, UNWRITTEN, 16);
    current->copies.push_back({(unsigned char *)shared, valid ? (const unsigned char *)global : NULL, current->groups});
}

void copy_commit() {
    current->groups++;
}

void emulator_copy_wait(unsigned under_way) {
    std::vector<pending_copy> &copies = current->copies;
    size_t done = 0;
    for (; done < copies.size() && copies[done].group + under_way < current->groups; done++) {
        if (copies[done].from)
            memcpy(copies[done].to, copies[done].from, 16);
        else
            memset(copies[done].to, 0, 16);
    }
    copies.erase(copies.begin(), copies.begin() + (ptrdiff_t)done);
}

/* ---------------------------------------------------------------- memory */

void *emulator_allocate(size_t bytes) {
    const size_t page = page_size();
    if (bytes > SIZE_MAX / 2)
        return NULL;
    allocation made = {};
    made.bytes = bytes;
    made.map_bytes = round_up(bytes, page) + 2 * page;
    void *const map = mmap(NULL, made.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    made.map = (unsigned char *)map;
    unsigned char *const data = made.map + page, *const end = made.map + made.map_bytes - page;
    if (end > data && mprotect(data, (size_t)(end - data), PROT_READ | PROT_WRITE)) {
        munmap(map, made.map_bytes);
        return NULL;
    }
    memset(data, UNWRITTEN, (size_t)(end - data));
    unsigned char *const memory = end - round_up(bytes, 16);
    const std::lock_guard<std::mutex> lock(memory_lock);
    allocations[memory] = made;
    allocated += bytes;
    return memory;
}

void emulator_free(void *memory) {
    if (!memory)
        return;
    const std::lock_guard<std::mutex> lock(memory_lock);
    const auto found = allocations.find((unsigned char *)memory);
    if (found == allocations.end())
        fail_outside("%p is freed, and was not allocated", memory);
    const allocation made = found->second;
    const unsigned char *const start = found->first;
    const unsigned char *at = find_written(made.map + page_size(), start);
    if (!at)
        at = find_written(start + made.bytes, start + round_up(made.bytes, 16));
    if (at)
        fail_outside("an allocation of %zu bytes was written at offset %td", made.bytes, at - start);
    munmap(made.map, made.map_bytes);
    allocations.erase(found);
    allocated -= made.bytes;
}

size_t emulator_allocated() {
    const std::lock_guard<std::mutex> lock(memory_lock);
    return allocated;
}

void emulator_fail_allocation(size_t limit) {
    const std::lock_guard<std::mutex> lock(memory_lock);
    allocation_limit = limit;
}

/* ---------------------------------------------------------------- the CUDA runtime */

static thread_local cudaError_t last_error;

static cudaError_t result(cudaError_t error) {
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

static cudaError_t valid_if(bool valid) {
    return result(valid ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGetLastError() {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError() {
    return last_error;
}

const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorInvalidValue:
        return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorNoDevice:
        return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
        return "cudaErrorInvalidDevice";
    }
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    }
    return "unrecognized error code";
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    if (device != 0)
        return result(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
        *value = 4;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = 8;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = MOST_SHARED;
        return cudaSuccess;
    }
    return result(cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    const std::lock_guard<std::mutex> lock(memory_lock);
    *total = allocation_limit ? allocation_limit : (size_t)16 << 30;
    *available = allocated < *total ? *total - allocated : 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    *memory = NULL;
    if (!bytes)
        return cudaSuccess;
    {
        const std::lock_guard<std::mutex> lock(memory_lock);
        if (allocation_limit && (bytes > allocation_limit || allocated > allocation_limit - bytes))
            return result(cudaErrorMemoryAllocation);
    }
    *memory = emulator_allocate(bytes);
    return result(*memory ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void *memory) {
    {
        const std::lock_guard<std::mutex> lock(memory_lock);
        if (memory && !allocations.count((unsigned char *)memory))
            return result(cudaErrorInvalidValue);
    }
    emulator_free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (!bytes)
        return cudaSuccess;
    {
        const std::lock_guard<std::mutex> lock(memory_lock);
        if ((to_device && !inside_allocation(to, bytes)) || (from_device && !inside_allocation(from, bytes)))
            return result(cudaErrorInvalidValue);
    }
    memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
    return cudaMemcpy(to, from, bytes, kind);
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes) {
    if (!bytes)
        return cudaSuccess;
    {
        const std::lock_guard<std::mutex> lock(memory_lock);
        if (!inside_allocation(memory, bytes))
            return result(cudaErrorInvalidValue);
    }
    memset(memory, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t) {
    return cudaMemset(memory, value, bytes);
}

/* A stream is nothing but a pointer that is not NULL. */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    *stream = malloc(1);
    return result(*stream ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    free(stream);
    return valid_if(stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned) {
    return valid_if(event);
}

/* An event is the time when it was recorded, in nanoseconds. */
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    *event = calloc(1, sizeof(int64_t));
    return result(*event ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    free(event);
    return valid_if(event);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
    if (!event)
        return valid_if(false);
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *(int64_t *)event = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return valid_if(event);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    if (!start || !end)
        return valid_if(false);
    *milliseconds = (float)((double)(*(int64_t *)end - *(int64_t *)start) * 1e-6);
    return cudaSuccess;
}
