#include "core/plan.h"

static double weight_at(const df_program *program, int32_t id, int64_t i) {
    return id < 0 ? 0.0 : (double)program->weights[id].data[i];
}

void df_merge_attention(const df_program *program, const df_attention_weights *ids, int64_t c, float *weight,
                        float *bias) {
    for (int64_t i = 0; i < c; i++)
        for (int64_t j = 0; j < c; j++) {
            double scores = 0, values = 0;
            for (int64_t l = 0; l < c; l++) {
                scores += weight_at(program, ids->k[0], l * c + i) * weight_at(program, ids->q[0], l * c + j);
                values += weight_at(program, ids->out[0], i * c + l) * weight_at(program, ids->v[0], l * c + j);
            }
            weight[i * c + j] = (float)scores;
            weight[(c + i) * c + j] = (float)values;
        }
    for (int64_t i = 0; i < c; i++) {
        double scores = 0, values = weight_at(program, ids->out[1], i);
        for (int64_t l = 0; l < c; l++) {
            scores += weight_at(program, ids->k[0], l * c + i) * weight_at(program, ids->q[1], l);
            values += weight_at(program, ids->out[0], i * c + l) * weight_at(program, ids->v[1], l);
        }
        bias[i] = (float)scores;
        bias[c + i] = (float)values;
    }
}
