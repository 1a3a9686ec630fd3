// Penalties against llama.cpp's own sampler, which is the slow oracle.
#include <llama.h>

#include <random>
#include <vector>

#include "check.h"
#include "engine/penalties.h"

namespace {

constexpr int kVocab = 300;

void agree(float repeat, float frequency, float presence, int last_n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, 5.0F);
    std::uniform_int_distribution<int> some(0, 39);  // few enough to repeat often
    ltm::Penalties ours(repeat, frequency, presence, static_cast<std::size_t>(last_n));
    llama_sampler* theirs = llama_sampler_init_penalties(kVocab, last_n, repeat, frequency, presence);
    for (int step = 0; step < 120; ++step) {
        std::vector<float> logits(kVocab);
        std::vector<llama_token_data> data;
        for (int i = 0; i < kVocab; ++i) {
            logits[static_cast<std::size_t>(i)] = normal(random);
            data.push_back({i, logits[static_cast<std::size_t>(i)], 0.0F});
        }
        llama_token_data_array array{data.data(), data.size(), -1, false};
        llama_sampler_apply(theirs, &array);
        ours.apply(logits.data());
        for (const llama_token_data& one : data) CHECK_EQ(logits[static_cast<std::size_t>(one.id)], one.logit);
        const llama_token token = some(random);
        llama_sampler_accept(theirs, token);
        ours.accept(token);
    }
    llama_sampler_free(theirs);
}

}  // namespace

int main() {
    unsigned seed = 1;
    for (const int last_n : {1, 7, 64, 1000}) {
        agree(1.1F, 0.0F, 0.0F, last_n, seed++);
        agree(1.0F, 0.3F, 0.0F, last_n, seed++);
        agree(1.0F, 0.0F, 0.4F, last_n, seed++);
        agree(0.8F, -0.2F, 0.5F, last_n, seed++);
    }
    return check_report();
}
