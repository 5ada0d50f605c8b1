/* The noise of the fence: a counter-based generator, so that a draw depends on the image and the key alone. */
#include "diffence.h"

#include <math.h>

/* Philox4x32-10: ten rounds of two 32x32 -> 64 bit multiplications, the key bumped by Weyl constants in between. */
void df_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t left = (uint64_t)0xD2511F53u * c0, right = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(right >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)right;
        c2 = (uint32_t)(left >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)left;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Box-Muller: two words -> two normals. The first uniform is in (0, 1], so the logarithm is finite. */
static void box_muller(uint32_t first, uint32_t second, float normals[2]) {
    const double two_pi = 6.283185307179586476925;
    double radius = sqrt(-2.0 * log(((double)first + 1.0) * 0x1p-32));
    double angle = two_pi * ((double)second * 0x1p-32);
    normals[0] = (float)(radius * cos(angle));
    normals[1] = (float)(radius * sin(angle));
}

static uint32_t load_le32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

void df_normals(const uint8_t hash[16], uint32_t draw, uint32_t first, uint32_t count, float *out) {
    const uint32_t key[2] = {load_le32(hash), load_le32(hash + 4)};
    uint32_t counter[4] = {0, draw, load_le32(hash + 8), load_le32(hash + 12)};
    const uint64_t end = (uint64_t)first + count; /* 64 bits: the last block may end at 2^32 */
    for (uint64_t position = first; position < end;) {
        uint32_t words[4];
        float block[4];
        counter[0] = (uint32_t)(position / 4);
        df_philox(counter, key, words);
        box_muller(words[0], words[1], block);
        box_muller(words[2], words[3], block + 2);
        do {
            *out++ = block[position % 4];
        } while (++position < end && position % 4 != 0);
    }
}
