/* Philox against its published known answers; normals against Box-Muller written out again. */
#include "check.h"
#include "diffence.h"

#include <math.h>
#include <string.h>

static void test_philox(void) {
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        /* The known answers of Random123 (kat_vectors, philox4x32 10). */
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];
        df_philox(known[i].counter, known[i].key, out);
        CHECK(memcmp(out, known[i].out, sizeof out) == 0, "vector %zu: %08x %08x %08x %08x", i, out[0], out[1], out[2],
              out[3]);
    }
}

static const uint8_t hash[16] = {0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe,
                                 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};

static void test_normals_follow_the_header(void) {
    const uint32_t key[2] = {0x76543210, 0xfedcba98}; /* the hash's words are little-endian */
    for (uint32_t block = 0; block < 50; block++) {
        const uint32_t counter[4] = {block, 7, 0x67452301, 0xefcdab89};
        uint32_t words[4];
        float normals[4];
        df_philox(counter, key, words);
        df_normals(hash, 7, 4 * block, 4, normals);
        for (int pair = 0; pair < 4; pair += 2) {
            double radius = sqrt(-2 * log(((double)words[pair] + 1) / 4294967296.0));
            double angle = 2 * 3.14159265358979323846 * ((double)words[pair + 1] / 4294967296.0);
            CHECK(fabs(normals[pair] - radius * cos(angle)) < 1e-6, "block %u", block);
            CHECK(fabs(normals[pair + 1] - radius * sin(angle)) < 1e-6, "block %u", block);
        }
    }
}

static void test_normals_do_not_depend_on_the_cut(void) {
    enum { COUNT = 103 };
    float whole[COUNT], cut[COUNT + 1];
    df_normals(hash, 3, 0, COUNT, whole);
    for (uint32_t first = 0; first < COUNT; first++) {
        for (uint32_t count = 0; first + count <= COUNT; count += 1 + count / 5) {
            cut[count] = 42;
            df_normals(hash, 3, first, count, cut);
            CHECK(memcmp(cut, whole + first, count * sizeof *cut) == 0, "%u from %u", count, first);
            CHECK(cut[count] == 42, "%u from %u wrote past its end", count, first);
        }
    }
    float other[COUNT], end[8] = {42, 42, 42, 42, 42, 42, 42, 42}, last;
    df_normals(hash, 4, 0, COUNT, other);
    CHECK(memcmp(other, whole, sizeof whole) != 0, "another draw, the same noise");
    df_normals(hash, 3, 0xfffffff8u, 8, end); /* up to the last position of all */
    df_normals(hash, 3, 0xffffffffu, 1, &last);
    CHECK(memcmp(&last, end + 7, sizeof last) == 0, "%g, %g", (double)last, (double)end[7]);
    for (int i = 0; i < 8; i++) {
        CHECK(fabsf(end[i]) < 7, "position 2^32 - %d: %g", 8 - i, (double)end[i]);
    }
}

/* Philox is a permutation, so there is a counter whose words are 0 0 ffffffff 0: the largest radius, and none. */
static void test_the_ends_of_the_uniforms(void) {
    static const uint8_t extreme[16] = {0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe,
                                        0x83, 0xe6, 0x33, 0xbc, 0x63, 0x75, 0x34, 0xd2};
    const uint32_t counter[4] = {0x0fc9de72, 0xac5937f3, 0xbc33e683, 0xd2347563}, key[2] = {0x76543210, 0xfedcba98};
    uint32_t words[4];
    float normals[4];
    df_philox(counter, key, words);
    CHECK(words[0] == 0 && words[1] == 0 && words[2] == 0xffffffff && words[3] == 0, "another counter");
    df_normals(extreme, counter[1], 4 * counter[0], 4, normals);
    CHECK(fabs((double)normals[0] - sqrt(64 * log(2))) < 1e-6, "%g", (double)normals[0]);
    CHECK(normals[1] == 0 && normals[2] == 0 && normals[3] == 0, "%g %g %g", (double)normals[1], (double)normals[2],
          (double)normals[3]);
}

static void test_normals_are_finite(void) {
    static float normals[1 << 20];
    df_normals(hash, 0, 0, 1 << 20, normals);
    double sum = 0, squares = 0;
    int odd = 0;
    for (int i = 0; i < 1 << 20; i++) {
        odd += !(fabsf(normals[i]) < 6.7f); /* sqrt(2 ln 2^32) = 6.66 */
        sum += (double)normals[i];
        squares += (double)normals[i] * (double)normals[i];
    }
    CHECK(odd == 0, "%d values out of range", odd);
    CHECK(fabs(sum) / (1 << 20) < 5e-3, "mean %g", sum / (1 << 20)); /* five standard errors */
    CHECK(fabs(squares / (1 << 20) - 1) < 7e-3, "variance %g", squares / (1 << 20));
}

int main(void) {
    test_philox();
    test_normals_follow_the_header();
    test_normals_do_not_depend_on_the_cut();
    test_the_ends_of_the_uniforms();
    test_normals_are_finite();
    return check_report("noise");
}
