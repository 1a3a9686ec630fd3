// The automaton as a string acceptor: tables, a slow oracle, and grammars made to hurt.
#include <ctime>

#include "check.h"
#include "grammar/gbnf_reader.h"
#include "grammar/grammar.h"
#include "naive_matcher.h"
#include "random_gbnf.h"
#include "support/error.h"

using namespace ltm::grammar;

#define CHECK_MSG(condition, message) \
    check::report(static_cast<bool>(condition), __FILE__, __LINE__, std::string(#condition ": ") + (message))

namespace {

void table(const std::string& text, const std::vector<std::string>& good, const std::vector<std::string>& bad,
           bool regular = true) {
    try {
        const Grammar grammar(text);
        CHECK_MSG(grammar.is_regular() == regular, text);
        for (const std::string& s : good) CHECK_MSG(grammar.accepts(s), "'" + s + "' refused by " + text);
        for (const std::string& s : bad) CHECK_MSG(!grammar.accepts(s), "'" + s + "' taken by " + text);
        CHECK_MSG(grammar.accepts(grammar.shortest()), "shortest '" + grammar.shortest() + "' refused by " + text);
        for (std::uint64_t seed = 0; seed < 20; ++seed) {
            const std::string sample = grammar.sample_bytes(seed, seed * 5);
            CHECK_MSG(grammar.accepts(sample), "sample '" + sample + "' refused by " + text);
        }
    } catch (const ltm::Error& error) {
        CHECK_MSG(false, std::string(error.what()) + " in " + text);
    }
}

void test_tables() {
    table("root ::= expr\nexpr ::= term (\"+\" term)*\nterm ::= number\nnumber ::= [0-9]+",
          {"42", "1+2+3+4+5", "123+456"}, {"+", "/ 3", "1+2+3+4+5+", "12a45", ""});
    table(R"GBNF(
root ::= expression
expression ::= term ws (("+"|"-") ws term)*
term ::= factor ws (("*"|"/") ws factor)*
factor ::= number | variable | "(" expression ")" | function-call
number ::= [0-9]+
variable ::= [a-zA-Z_][a-zA-Z0-9_]*
function-call ::= variable ws "(" (expression ("," ws expression)*)? ")"
ws ::= [ \t\n\r]?)GBNF",
          {"42", "1*2*3*4*5", "x", "x+10", "x1+y2", "(a+b)*(c-d)", "func()", "func(x,y+2)", "a*(b+c)-d/e",
           "f(g(x),h(y,z))", "x + 10", "(a + b) * (c - d)", "a * (b + c) - d / e", "f(g(x), h(y, z))",
           "123+456*789-123/456+789*123-456/789+123*456-789/123+456*789-123/456+789*123-456"},
          {"+", "/ 3x", "x + + y", "a * / b", "func(,)", "func(x y)", "(a + b", "x + y)", "a + b * (c - d", "42 +",
           "x + 10 +", "func(x, y + 2", "f(g(x), h(y, z)"},
          false);
    table("root ::= ... \"abc\" ...", {"abcabcabc", "aaaabcccc", "🔵🟠✅abc❌🟠🔵"},
          {"aaabcccc", "aaaaabcccc", "aaaabccc", "aaaabccccc", "🔵🟠✅❌abc❌✅🟠🔵", "🔵🟠abc🟠🔵"});
    table("root ::= \"a\"*", {"", "a", std::string(200, 'a')}, {"b", "ab", "ba"});
    table("root ::= \"a\"+", {"a", "aaaaa"}, {"", "b", "ab"});
    table("root ::= \"a\"?", {"", "a"}, {"b", "aa"});
    table("root ::= cons+ vowel* cons? (vowel cons)*\nvowel ::= [aeiouy]\ncons ::= [bcdfghjklmnpqrstvwxyz]",
          {"yes", "no", "noyes", "crwth", "four", "bryyyy"}, {"yess", "yesno", "forty", "catyyy"});
    table("root ::= [ab]{4}", {"aaaa", "bbbb", "abab"}, {"a", "b", "aaaaa", ""});
    table("root ::= [ab]{4,}", {"aaaa", "aaaaab", "bbbb"}, {"", "aba"});
    table("root ::= [ab]{12,}", {std::string(12, 'a'), std::string(100, 'b')}, {"", std::string(11, 'a')});
    table("root ::= [ab]{0,4}", {"", "a", "aa", "aaa", "aaab"}, {"aaaaa"});
    table("root ::= (\"0x\" [A-F0-9]{2} \" \"?){3,5}", {"0xFF 0x12 0xAB", "0xFF 0x12 0xAB 0x00 0x00"},
          {"", "0xFF", "0xFF 0x12", "0xFF 0x12 0xAB 0x00 0x00 0x00"});
    table("root ::= ( [x]* )*", {"", "x", "xx"}, {"y", "yy"});
    table("root ::= ( [x]* ){30,40}", {"", "x", std::string(100, 'x')}, {"y"});
    table("root ::= ( [x]? ){10,20} \"y\"", {"y", "xy", std::string(20, 'x') + "y"}, {"", std::string(21, 'x') + "y"});
    table("root ::= (\"ab\"? \"c\"?){12}", {"", "ab", "abc", "cab"}, {"a", "ababababababababababababab1"});
    table("root ::= nb | nb any{0,18} nb\nnb ::= [^ \"]\nany ::= [^\"]",
          {"a", "ab", "a b", std::string(20, 'x'), "Ж и З"}, {"", " ", "a ", " a", std::string(21, 'x'), "a\"b"});
    // Counters that several ways lead into at different times.
    table("root ::= \"x\"{0,30} \"x\"{0,40}", {"", std::string(70, 'x')}, {std::string(71, 'x')});
    table("root ::= \"x\"* \"x\"{20,30}", {std::string(20, 'x'), std::string(90, 'x')}, {std::string(19, 'x')});
    table("root ::= \"x\"{10,12} \"x\"{10,12} \"y\"",
          {std::string(20, 'x') + "y", std::string(24, 'x') + "y", std::string(22, 'x') + "y"},
          {std::string(19, 'x') + "y", std::string(25, 'x') + "y"});
    table("root ::= (\"x\"{10,12} | \"x\"{20}){1,10} \"y\"", {std::string(10, 'x') + "y", std::string(35, 'x') + "y"},
          {std::string(13, 'x') + "y", std::string(19, 'x') + "y"});
    table("root ::= line{1,6}\nline ::= \"  \" [^\\n]{1,20} \"\\n\"",
          {"  a\n", "  a\n  b\n", "  1\n  2\n  3\n  4\n  5\n  6\n"},
          {"", "  \n", "  a", "  1\n  2\n  3\n  4\n  5\n  6\n  7\n", "  " + std::string(21, 'x') + "\n"});
    // Tail recursion is regular.
    table("root ::= \"a\" root | \"b\" other | \"\"\nother ::= \"c\" root | \"d\" other | \"e\"",
          {"", "aa", "be", "bcbde", "aabddca"}, {"b", "bd", "bea", "c"});
    table("root ::= word (\" \" word)*\nword ::= [a-z] word?", {"a", "ab cd"}, {"", " ", "a "});
    table("root ::= \"(\" root \")\" | \"x\"", {"x", "(x)", "((((x))))"}, {"", "(x", "x)", "()"}, false);
    table("root ::= ws \"x\" ws\nws ::= [ ] ws | \"\"", {"x", "   x ", " x"}, {"", "   "});
    // UTF-8 is taken strictly: no overlong forms, surrogates, or code points past the end.
    table("root ::= .", {"a", "é", "€", "😀", "\xF4\x8F\xBF\xBF", "\xED\x9F\xBF"},
          {"", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\x80",
           "\xC3", std::string(1, '\0')});
    table("root ::= \"\" | ( \"a\" \"\"* )", {"", "a"}, {"aa"});
}

std::u32string decode(const std::string& bytes) {
    std::u32string text;
    PartialChar partial;
    for (const char byte : bytes) {
        std::uint32_t cp = 0;
        if (partial.push(static_cast<std::uint8_t>(byte), cp) == PartialChar::Status::complete) text.push_back(cp);
    }
    return text;
}

void test_against_oracle() {
    random_gbnf::Random random(20240611);
    std::size_t compared = 0;
    std::size_t taken = 0;
    std::size_t refused = 0;
    static const char* const kPieces[] = {"a", "b", "ab", "ж", "é", "😀", "c", "я", "ba", "aж"};
    for (int round = 0; round < 250; ++round) {
        random_gbnf::Writer writer(random, false, 12);
        const std::string text = writer.grammar();
        try {
            Limits limits;
            limits.work = 500'000;
            const Grammar grammar(text, "root", limits);
            const GrammarIr ir = read_gbnf(text);
            oracle::NaiveMatcher naive(ir);
            for (int i = 0; i < 14; ++i) {
                std::string document;
                if (i % 2 == 0) {
                    document = grammar.sample_bytes(random.next(), random.below(14));
                } else {
                    for (std::uint32_t k = random.below(9); k > 0; --k) document += kPieces[random.below(10)];
                }
                if (document.size() > 60) continue;
                const bool expected = naive.accepts(decode(document));
                taken += expected ? 1 : 0;
                ++compared;
                CHECK_MSG(grammar.accepts(document) == expected, "'" + document + "' by " + text);
            }
        } catch (const ltm::Error& error) {
            // Wildly ambiguous ones may pass the limits; nothing else may be refused.
            ++refused;
            CHECK_MSG(std::string(error.what()).find("ambiguous") != std::string::npos ||
                          std::string(error.what()).find("elementary steps") != std::string::npos ||
                          std::string(error.what()).find("states were met") != std::string::npos ||
                          std::string(error.what()).find("shortest document is longer") != std::string::npos,
                      std::string(error.what()) + " in " + text);
        }
    }
    CHECK(refused < 25);
    CHECK(compared > 2500);
    CHECK(taken > compared / 4);
    std::printf("compared with the oracle: %zu texts, %zu of them documents; %zu grammars past the limits\n", compared,
                taken, refused);
}

#if defined(__SANITIZE_ADDRESS__)
constexpr double kPatience = 20;
#else
constexpr double kPatience = 1;
#endif

// Takes or refuses with a typed error, quickly.
void hostile(const std::string& what, const std::string& text, const std::string& document, double most_ms = 1000) {
    const std::clock_t from = std::clock();  // of this process: other work on the machine doesn't count
    std::string outcome;
    try {
        const Grammar grammar(text);
        outcome = grammar.accepts(document) ? "taken" : "refused";
        (void)grammar.sample_bytes(1, 60);
    } catch (const ltm::Error& error) {
        CHECK(error.code() == ltm::ErrorCode::grammar);
        outcome = error.what();
    }
    const double ms = 1000.0 * static_cast<double>(std::clock() - from) / CLOCKS_PER_SEC;
    std::printf("%-32s %8.2f ms  %.90s\n", what.c_str(), ms, outcome.c_str());
    CHECK_MSG(ms < most_ms * kPatience, what);
}

std::string repeated(const std::string& part, int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += part;
    return text;
}

void test_hostile() {
    hostile("x? x? x? … (1000)", "root ::= " + repeated("\"x\"? ", 1000), std::string(500, 'x'));
    hostile("x? … (20000)", "root ::= " + repeated("\"x\"? ", 20000), std::string(100, 'x'));
    hostile("(x?)* nested 100", "root ::= " + repeated("(", 100) + "\"x\"?" + repeated(")*", 100),
            std::string(500, 'x'));
    hostile("(x*){0,1000} nested 6", "root ::= ((((((\"x\"*){0,1000}){0,1000}){0,1000}){0,1000}){0,1000}){0,1000}",
            std::string(50, 'x'));
    hostile("(([^x]*){0,99}…) six deep", "root ::= (((((([^x]*){0,99}){0,99}){0,99}){0,99}){0,99}){0,99}",
            std::string(50, 'y'));
    hostile("x{0,100000}", "root ::= \"x\"{0,100000}", std::string(100000, 'x'));
    hostile("(x{0,1000}y?){0,1000}", "root ::= (\"x\"{0,1000} \"y\"?){0,1000}", std::string(300, 'x'));
    hostile("(x{1,1000}){1,1000}", "root ::= (\"x\"{1,1000}){1,1000}", std::string(300, 'x'));
    hostile("x{1000000}", "root ::= \"x\"{1000000}", "xxx");
    hostile("(x{1000}){1000}", "root ::= ((\"x\"{1000}){1000}){1000}", "xxx");
    hostile("(a|ab|b|ba){0,500} …", "root ::= ((\"a\"|\"ab\"|\"b\"|\"ba\"){10,500} \"a\"?){10,500}",
            repeated("ab", 100));
    std::string chain = "root ::= r0\n";
    for (int i = 0; i < 10000; ++i) chain += "r" + std::to_string(i) + " ::= r" + std::to_string(i + 1) + " \"a\"\n";
    hostile("10 000 rules in a chain", chain + "r10000 ::= \"b\"\n", "b" + std::string(10000, 'a'), 3000);
    std::string doubling;
    for (int i = 0; i < 60; ++i)
        doubling += "d" + std::to_string(i) + " ::= d" + std::to_string(i + 1) + " d" + std::to_string(i + 1) + "\n";
    hostile("doubling 2^60", "root ::= d0\n" + doubling + "d60 ::= \"a\"\n", std::string(300, 'a'));
    std::string maybe;
    for (int i = 0; i < 60; ++i)
        maybe += "d" + std::to_string(i) + " ::= d" + std::to_string(i + 1) + "? d" + std::to_string(i + 1) + "?\n";
    hostile("optional doubling", "root ::= d0\n" + maybe + "d60 ::= \"a\"\n", std::string(300, 'a'));
    hostile("parentheses 200 deep", "root ::= \"(\" root \")\" | \"x\"",
            std::string(900, '(') + "x" + std::string(900, ')'));
    hostile("parentheses too deep", "root ::= \"(\" root \")\" | \"x\"", std::string(100000, '('));
    hostile("ambiguous recursion", "root ::= \"a\" root root | \"a\" | \"a\" root", std::string(200, 'a'));
    std::string classes = "root ::= (";
    for (int i = 0; i < 15000; ++i) {
        std::string c;
        append_utf8(c, static_cast<std::uint32_t>(0x4E00 + i));
        classes += (i == 0 ? "\"" : " | \"") + c + "a\"";
    }
    hostile("15 000 different characters", classes + ")*", "一a丁a");
    hostile("large bounds against each other", "root ::= (\"a\"{3,900} \"b\"?){3,900} (\"a\"{3,900} \"b\"?){3,900}",
            std::string(400, 'a'));
}

void test_sharing() {
    // A long slot is a handful of shapes, whatever its bound.
    const Grammar grammar("root ::= \"\\\"\" [^\"\\n]{1,400} \"\\\"\\n\"");
    Automaton automaton(grammar.program());
    State state = automaton.start();
    for (const char c : "\"" + std::string(400, 'x') + "\"\n") {
        automaton.begin_call();
        CHECK(automaton.step(state, static_cast<std::uint8_t>(c)));
    }
    CHECK(automaton.complete(state));
    CHECK(automaton.shape_count() < 10);
    CHECK(automaton.transition_count() < 20);
}

void test_forced() {
    const auto forced = [](const std::string& text, const std::string& prefix) {
        const Grammar grammar(text);
        Automaton automaton(grammar.program());
        State state = automaton.start();
        for (const char c : prefix) (void)automaton.step(state, static_cast<std::uint8_t>(c));
        return automaton.forced(state, 1000);
    };
    const std::string scene =
        "root ::= \"scene:\\n  t: \\\"\" [a-z ]{1,5} \"\\\"\\n  r: |\\n\" (\"инициатор\" | \"искатель\" | \"инок\")";
    CHECK_EQ(forced(scene, ""), std::string("scene:\n  t: \""));
    CHECK_EQ(forced(scene, "scene:\n  t: \"ab"), std::string(""));
    CHECK_EQ(forced(scene, "scene:\n  t: \"abcde"), std::string("\"\n  r: |\nи\xD0").substr(0, 11));
    CHECK_EQ(forced("root ::= \"a\"? \"b\"", "a"), std::string("b"));
    CHECK_EQ(forced("root ::= \"ab\" \"c\"?", ""), std::string("ab"));
    CHECK_EQ(forced("root ::= [аб] \"x\"", ""), std::string("\xD0"));
    CHECK_EQ(forced("root ::= [аб] \"x\"", "\xD0\xB0"), std::string("x"));
    CHECK_EQ(forced("root ::= \"é\" \"x\"", "\xC3"), std::string("\xA9x"));
}

}  // namespace

int main() {
    test_tables();
    test_against_oracle();
    test_sharing();
    test_forced();
    test_hostile();
    return check_report();
}
