// Scoring: the probability of given texts, without writing any.
#include <algorithm>
#include <cmath>

#include "engine/context.h"
#include "support/error.h"

namespace ltm {
namespace {

double log_sum_exp(const float* logits, int n) {
    const float highest = *std::max_element(logits, logits + n);
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits[i] - highest));
    return static_cast<double>(highest) + std::log(sum);
}

}  // namespace

class Scorer {
  public:
    Scorer(Context& context, const std::vector<ScoreRequest>& requests)
        : context_(context), cache_(*context.cache_), requests_(requests), scores_(requests.size()) {}

    std::vector<Score> run() {
        if (!read_prompts() || !read_continuations()) return {};
        return std::move(scores_);
    }

  private:
    struct Part {
        std::size_t request = 0;
        std::size_t continuation = 0;
        std::size_t done = 0;  // tokens whose KV is computed
        SequenceCache::Lease lease;
    };

    [[nodiscard]] float logprob(const float* logits, double total, llama_token token) const {
        return static_cast<float>(static_cast<double>(logits[token]) - total);
    }

    // Leaves every prompt's KV behind and notes the first token of each continuation.
    bool read_prompts() {
        const int n_vocab = context_.model_->n_vocab();
        std::size_t common = requests_.front().prompt.size();
        for (const ScoreRequest& request : requests_) {
            const auto& first = requests_.front().prompt;
            const auto differ = std::mismatch(first.begin(), first.end(), request.prompt.begin(), request.prompt.end());
            common = std::min(common, static_cast<std::size_t>(differ.first - first.begin()));
        }
        for (std::size_t next = 0; next < requests_.size();) {
            // As many prompts at once as there are sequences for, one of which stays free for what is cached.
            const std::size_t group =
                std::min(requests_.size() - next, static_cast<std::size_t>(context_.n_seq_max_ - 1));
            std::vector<SequenceCache::Lease> leases;
            std::vector<std::size_t> from;
            for (std::size_t i = next; i < next + group; ++i) {
                const std::vector<llama_token>& prompt = requests_[i].prompt;
                leases.push_back(cache_.branch(prompt, prompt.size() - 1, context_.base_, context_.applied_));
                leases.back().keep();
                from.push_back(cache_.length(leases.back().seq()));
                scores_[i].n_reused = static_cast<int>(from.back());
                if (i != next || common == 0) continue;
                // What all have in common is computed once, in the first one.
                const std::size_t leave = prompt.size() - std::min(common, prompt.size() - 1);
                if (!context_.prefill(leases.front().seq(), prompt, leave)) return false;
            }
            while (true) {
                std::vector<Context::Piece> pieces;
                std::vector<std::size_t> whose;
                std::size_t room = static_cast<std::size_t>(context_.n_batch_);
                for (std::size_t i = 0; i < group && room > 0; ++i) {
                    const std::vector<llama_token>& prompt = requests_[next + i].prompt;
                    const std::size_t start = cache_.length(leases[i].seq());
                    const std::size_t count = std::min(room, prompt.size() - start);
                    if (count == 0) continue;
                    const bool whole = start + count == prompt.size();
                    pieces.push_back({leases[i].seq(), prompt.data() + start, count, whole ? count - 1 : count});
                    whose.push_back(next + i);
                    room -= count;
                }
                if (pieces.empty()) break;
                if (!context_.decode(pieces)) return false;
                for (std::size_t p = 0; p < pieces.size(); ++p) {
                    if (pieces[p].logits_from == pieces[p].count) continue;
                    const float* logits = context_.logits(pieces[p].row + pieces[p].count - 1);
                    const double total = log_sum_exp(logits, n_vocab);
                    for (const auto& continuation : requests_[whose[p]].continuations) {
                        auto& values = scores_[whose[p]].logprobs.emplace_back();
                        if (!continuation.empty()) values.push_back(logprob(logits, total, continuation.front()));
                    }
                }
            }
            for (std::size_t i = 0; i < group; ++i) {
                scores_[next + i].n_prefilled = static_cast<int>(requests_[next + i].prompt.size() - from[i]);
            }
            next += group;
        }
        return true;
    }

    bool read_continuations() {
        const int n_vocab = context_.model_->n_vocab();
        std::vector<std::pair<std::size_t, std::size_t>> waiting;
        for (std::size_t i = 0; i < requests_.size(); ++i) {
            for (std::size_t c = 0; c < requests_[i].continuations.size(); ++c) {
                if (requests_[i].continuations[c].size() > 1) waiting.emplace_back(i, c);
            }
        }
        std::reverse(waiting.begin(), waiting.end());
        std::vector<Part> parts;
        const auto most = static_cast<std::size_t>(std::max(context_.n_seq_max_ / 2, 1));
        while (!waiting.empty() || !parts.empty()) {
            while (parts.size() < most && !waiting.empty()) {
                const auto [request, continuation] = waiting.back();
                waiting.pop_back();
                const std::vector<llama_token>& prompt = requests_[request].prompt;
                Part part{request, continuation, 0,
                          cache_.branch(prompt, prompt.size(), context_.base_, context_.applied_)};
                if (!context_.prefill(part.lease.seq(), prompt, 0)) return false;
                parts.push_back(std::move(part));
            }
            std::vector<Context::Piece> pieces;
            std::size_t room = static_cast<std::size_t>(std::min(context_.n_batch_, context_.n_outputs_));
            for (Part& part : parts) {
                const auto& tokens = requests_[part.request].continuations[part.continuation];
                const std::size_t count = std::min(room, tokens.size() - 1 - part.done);
                pieces.push_back({part.lease.seq(), tokens.data() + part.done, count, 0});
                room -= count;
            }
            if (!context_.decode(pieces)) return false;
            for (std::size_t p = 0; p < parts.size(); ++p) {
                Part& part = parts[p];
                const auto& tokens = requests_[part.request].continuations[part.continuation];
                auto& values = scores_[part.request].logprobs[part.continuation];
                for (std::size_t t = 0; t < pieces[p].count; ++t) {
                    const float* logits = context_.logits(pieces[p].row + t);
                    values.push_back(logprob(logits, log_sum_exp(logits, n_vocab), tokens[part.done + t + 1]));
                }
                part.done += pieces[p].count;
            }
            std::erase_if(parts, [this](const Part& part) {
                return part.done + 1 >= requests_[part.request].continuations[part.continuation].size();
            });
        }
        return true;
    }

    Context& context_;
    SequenceCache& cache_;
    const std::vector<ScoreRequest>& requests_;
    std::vector<Score> scores_;
};

std::vector<Score> Context::score(const std::vector<ScoreRequest>& requests, const AdapterState& adapters,
                                  const StopPoll& poll) {
    const Pass pass(*this, &poll);
    if (requests.empty()) return {};
    std::vector<const std::vector<llama_token>*> prompts;
    std::size_t longest = 0;
    for (const ScoreRequest& request : requests) {
        if (request.prompt.empty()) throw Error(ErrorCode::invalid_argument, "score: the prompt is empty");
        check_tokens(request.prompt, "score");
        prompts.push_back(&request.prompt);
        for (const auto& continuation : request.continuations) {
            check_tokens(continuation, "score");
            longest = std::max(longest, continuation.size());
        }
    }
    // Continuations are dropped as they are done; only those of one batch stand there at once.
    check_room(prompts, longest);
    apply(adapters);
    return Scorer(*this, requests).run();
}

}  // namespace ltm
