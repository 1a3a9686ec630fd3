// One context used as a session uses it: work between two turns, a turn that awaits or stops it, a cancel from another
// thread, figures read at any time, a second context on the same model. Built with LTM_SANITIZE=thread this is the
// race detector's test. Needs a model: LTM_TEST_MODEL; without it the test is skipped.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

#include "check.h"
#include "engine/backend.h"
#include "engine/context.h"
#include "engine/model.h"
#include "support/error.h"

namespace {

using namespace ltm;
using Tokens = std::vector<llama_token>;
constexpr int kSkipped = 77;

Request request(const Tokens& prompt) {
    Request out;
    out.prompt = prompt;
    out.options.max_tokens = 6;
    out.options.sampling.temperature = 0;
    return out;
}

Tokens answer(Context& context, const Tokens& prompt) {
    const std::vector<Generation> done = context.generate({request(prompt)}, {}, {}, [] { return false; });
    return done.empty() ? Tokens{} : done[0].tokens;
}

ContextOptions options() {
    ContextOptions out;
    out.n_ctx = 256;
    out.n_batch = 32;
    out.n_threads = 1;
    return out;
}

}  // namespace

int main() {
    const char* const path = std::getenv("LTM_TEST_MODEL");
    if (path == nullptr || *path == '\0') {
        std::puts("skipped: LTM_TEST_MODEL is not set");
        return kSkipped;
    }
    ensure_backend();
    ModelOptions loading;
    loading.path = path;
    const std::shared_ptr<Model> model = Model::load(loading);
    const Tokens head =
        model->tokenize("The river is wide and the house stands behind it, under old trees.", true, false);
    Tokens longer = head;
    for (const llama_token token : model->tokenize(" Those who left it come back in spring.", false, false))
        longer.push_back(token);

    Context context(model, options());
    const Tokens expected = answer(context, longer);
    CHECK_EQ(expected.size(), 6U);

    std::atomic<bool> over{false};
    std::atomic<int> refused{0};
    std::thread reader([&] {
        long sum = 0;
        while (!over) {
            sum += context.n_cached() + context.n_sequences() + context.n_leased() + context.adapter_changes();
            std::this_thread::yield();
        }
        CHECK(sum >= 0);
    });
    std::thread intruder([&] {  // a second caller is refused, or gets its turn
        while (!over) {
            try {
                context.clear();
            } catch (const Error&) {
                ++refused;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(7));
        }
    });
    std::thread neighbour([&] {  // the weights are shared, nothing else
        Context own(model, options());
        for (int i = 0; i < 4; ++i) CHECK(answer(own, longer) == expected);
    });

    std::mt19937 random(5);
    int stopped = 0;
    int collisions = 0;
    for (int turn = 0; turn < 40; ++turn) {
        std::thread idle([&] {
            try {
                (void)context.commit(turn % 2 == 0 ? head : longer, [] { return false; });
            } catch (const Error&) {
                ++refused;
            }
        });
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
        if (turn % 3 != 0) context.cancel();
        idle.join();
        context.resume();
        std::thread canceller([&, wait = random() % 60'000] {
            std::this_thread::sleep_for(std::chrono::microseconds(wait));
            if (turn % 2 == 0) context.cancel();
        });
        try {
            const Tokens written = answer(context, longer);
            stopped += written.size() < expected.size();
            CHECK(std::equal(written.begin(), written.end(), expected.begin()));
        } catch (const Error&) {
            ++collisions;  // with the intruder
        }
        canceller.join();
        context.resume();
    }
    over = true;
    reader.join();
    intruder.join();
    neighbour.join();
    CHECK(collisions < 40);
    CHECK_EQ(context.n_leased(), 0);
    CHECK(answer(context, longer) == expected);
    std::printf("%d answers stopped, %d calls of a second caller refused, %d collisions\n", stopped, refused.load(),
                collisions);
    return check_report();
}
