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
    // `room`: tokens that continuations may take beside the prompts.
    Scorer(Context& context, const std::vector<ScoreRequest>& requests, std::size_t room)
        : context_(context), cache_(*context.cache_), requests_(requests), room_(room), scores_(requests.size()) {}

    std::vector<Score> run() {
        // One sequence stays free for what is cached. Where continuations need sequences too, they get half of them,
        // and are read while their prompts stand there, so that no prompt is computed twice.
        const bool longer = std::any_of(requests_.begin(), requests_.end(), [](const ScoreRequest& request) {
            return std::any_of(request.continuations.begin(), request.continuations.end(),
                               [](const auto& tokens) { return tokens.size() > 1; });
        });
        const auto places = static_cast<std::size_t>(context_.n_seq_max_ - 1);
        const std::size_t group = longer ? std::max<std::size_t>(places / 2, 1) : places;
        const std::size_t parts = std::max<std::size_t>(places - group, 1);
        for (std::size_t first = 0; first < requests_.size(); first += group) {
            const std::size_t end = std::min(first + group, requests_.size());
            std::vector<SequenceCache::Lease> leases;
            if (!read_prompts(first, end, leases) || !read_continuations(first, end, parts)) return {};
        }
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

    // Leaves the KV of prompts [first, end) in `leases` and notes the first token of each continuation.
    bool read_prompts(std::size_t first, std::size_t end, std::vector<SequenceCache::Lease>& leases) {
        const int n_vocab = context_.model_->n_vocab();
        std::size_t common = requests_[first].prompt.size();
        for (std::size_t i = first; i < end; ++i) {
            const std::vector<llama_token>& a = requests_[first].prompt;
            const std::vector<llama_token>& b = requests_[i].prompt;
            const auto differ = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
            common = std::min(common, static_cast<std::size_t>(differ.first - a.begin()));
        }
        for (std::size_t i = first; i < end; ++i) {
            const std::vector<llama_token>& prompt = requests_[i].prompt;
            leases.push_back(cache_.branch(prompt, prompt.size() - 1, context_.base_, context_.applied_));
            leases.back().keep();
            const std::size_t reused = cache_.length(leases.back().seq());
            scores_[i].n_reused = static_cast<int>(reused);
            scores_[i].n_prefilled = static_cast<int>(prompt.size() - reused);
            if (i != first || common == 0) continue;
            // What all have in common is computed once, in the first one.
            const std::size_t leave = prompt.size() - std::min(common, prompt.size() - 1);
            if (!context_.prefill(leases.front().seq(), prompt, leave)) return false;
        }
        while (true) {
            std::vector<Context::Piece> pieces;
            std::vector<std::size_t> whose;
            std::size_t room = static_cast<std::size_t>(context_.n_batch_);
            for (std::size_t i = first; i < end && room > 0; ++i) {
                const std::vector<llama_token>& prompt = requests_[i].prompt;
                const int seq = leases[i - first].seq();
                const std::size_t start = cache_.length(seq);
                const std::size_t count = std::min(room, prompt.size() - start);
                if (count == 0) continue;
                const bool whole = start + count == prompt.size();
                pieces.push_back({seq, prompt.data() + start, count, whole ? count - 1 : count});
                whose.push_back(i);
                room -= count;
            }
            if (pieces.empty()) return true;
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
    }

    // What follows the first tokens, `most` continuations at once and no more than there is room for.
    bool read_continuations(std::size_t first, std::size_t end, std::size_t most) {
        const int n_vocab = context_.model_->n_vocab();
        std::vector<std::pair<std::size_t, std::size_t>> waiting;
        for (std::size_t i = first; i < end; ++i) {
            for (std::size_t c = 0; c < requests_[i].continuations.size(); ++c) {
                if (requests_[i].continuations[c].size() > 1) waiting.emplace_back(i, c);
            }
        }
        std::reverse(waiting.begin(), waiting.end());
        std::vector<Part> parts;
        std::size_t taken = 0;
        while (!waiting.empty() || !parts.empty()) {
            while (parts.size() < most && !waiting.empty()) {
                const auto [request, continuation] = waiting.back();
                const std::size_t size = requests_[request].continuations[continuation].size();
                if (!parts.empty() && taken + size > room_) break;
                waiting.pop_back();
                const std::vector<llama_token>& prompt = requests_[request].prompt;
                Part part{request, continuation, 0,
                          cache_.branch(prompt, prompt.size(), context_.base_, context_.applied_)};
                if (!context_.prefill(part.lease.seq(), prompt, 0)) return false;
                parts.push_back(std::move(part));
                taken += size;
            }
            std::vector<Context::Piece> pieces;
            std::size_t room = static_cast<std::size_t>(std::min(context_.n_batch_, context_.n_outputs_));
            for (const Part& part : parts) {
                const auto& tokens = text(part);
                const std::size_t count = std::min(room, tokens.size() - 1 - part.done);
                pieces.push_back({part.lease.seq(), tokens.data() + part.done, count, 0});
                room -= count;
            }
            if (!context_.decode(pieces)) return false;
            for (std::size_t p = 0; p < parts.size(); ++p) {
                Part& part = parts[p];
                auto& values = scores_[part.request].logprobs[part.continuation];
                for (std::size_t t = 0; t < pieces[p].count; ++t) {
                    const float* logits = context_.logits(pieces[p].row + t);
                    values.push_back(logprob(logits, log_sum_exp(logits, n_vocab), text(part)[part.done + t + 1]));
                }
                part.done += pieces[p].count;
            }
            std::erase_if(parts, [this, &taken](const Part& part) {
                const bool whole = part.done + 1 >= text(part).size();
                if (whole) taken -= text(part).size();
                return whole;
            });
        }
        return true;
    }

    [[nodiscard]] const std::vector<llama_token>& text(const Part& part) const {
        return requests_[part.request].continuations[part.continuation];
    }

    Context& context_;
    SequenceCache& cache_;
    const std::vector<ScoreRequest>& requests_;
    std::size_t room_;
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
    // Continuations are dropped as they are done: there need only be room for the longest.
    const std::size_t taken = check_room(prompts, longest);
    apply(adapters);
    return Scorer(*this, requests, static_cast<std::size_t>(n_ctx()) - taken).run();
}

}  // namespace ltm
