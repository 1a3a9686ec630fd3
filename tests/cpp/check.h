// A minimal test harness: CHECK macros that report file and line, and a summary for main to return.
#pragma once

#include <atomic>
#include <cstdio>
#include <sstream>
#include <string>

namespace check {

inline std::atomic<int> checks{0};
inline std::atomic<int> failures{0};

inline void report(bool holds, const char* file, int line, const std::string& what) {
    ++checks;
    if (holds) return;
    ++failures;
    std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, what.c_str());
}

template <typename A, typename B>
void equal(const A& a, const B& b, const char* file, int line, const char* text) {
    std::ostringstream out;
    out << text << " (" << a << " != " << b << ")";
    report(a == b, file, line, out.str());
}

}  // namespace check

#define CHECK(condition) check::report(static_cast<bool>(condition), __FILE__, __LINE__, #condition)
#define CHECK_EQ(a, b) check::equal((a), (b), __FILE__, __LINE__, #a " == " #b)

// Runs `expression` and checks that it throws `type`.
#define CHECK_THROWS(expression, type)                                                       \
    do {                                                                                     \
        bool thrown = false;                                                                 \
        try {                                                                                \
            (void)(expression);                                                              \
        } catch (const type&) {                                                              \
            thrown = true;                                                                   \
        }                                                                                    \
        check::report(thrown, __FILE__, __LINE__, #expression " should have thrown " #type); \
    } while (false)

inline int check_report() {
    std::printf("%d checks, %d failed\n", check::checks.load(), check::failures.load());
    return check::failures == 0 ? 0 : 1;
}
