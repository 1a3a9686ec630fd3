#include "engine/penalties.h"

namespace ltm {

void Penalties::accept(llama_token token) {
    if (last_n_ == 0) return;
    ++counts_[token];
    window_.push_back(token);
    if (window_.size() <= last_n_) return;
    const auto oldest = counts_.find(window_.front());
    if (--oldest->second == 0) counts_.erase(oldest);
    window_.pop_front();
}

void Penalties::apply(float* logits) const {
    if (repeat_ == 1.0F && frequency_ == 0.0F && presence_ == 0.0F) return;
    for (const auto& [token, count] : counts_) {
        float& logit = logits[token];
        logit = logit <= 0.0F ? logit * repeat_ : logit / repeat_;
        logit -= static_cast<float>(count) * frequency_ + presence_;
    }
}

}  // namespace ltm
