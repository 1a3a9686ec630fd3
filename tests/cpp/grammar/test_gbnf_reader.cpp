// What the reader takes and what it refuses, with the place and the words of every refusal.
#include "check.h"
#include "grammar/grammar.h"
#include "support/error.h"

using ltm::grammar::Grammar;

#define CHECK_MSG(condition, message) \
    check::report(static_cast<bool>(condition), __FILE__, __LINE__, std::string(#condition ": ") + (message))

namespace {

void refuses(const std::string& text, const std::string& words, const std::string& root = "root") {
    try {
        const Grammar grammar(text, root);
        CHECK_MSG(false, "taken: " + text);
    } catch (const ltm::Error& error) {
        CHECK(error.code() == ltm::ErrorCode::grammar);
        const std::string what = error.what();
        CHECK_MSG(what.find(words) != std::string::npos, what + " (wanted: " + words + ")");
    }
}

void takes(const std::string& text, const std::string& document, const std::string& root = "root") {
    try {
        CHECK_MSG(Grammar(text, root).accepts(document), text + " does not take " + document);
    } catch (const ltm::Error& error) {
        CHECK_MSG(false, std::string(error.what()) + " in " + text);
    }
}

void test_syntax() {
    takes("root ::= \"a\"", "a");
    takes("root ::= \"a\" | [bdx-z] | [^1-3]", "y");
    takes("root  ::= a+\na     ::= \"a\"", "aaa");
    takes("\n  # comment\n\nroot ::= # another\n  \"a\" # and another\n  # last", "a");
    takes("root ::= \"a\"{ 4}", "aaaa");
    takes("root ::= \"a\"{2,}", "aaaaa");
    takes("root ::= \"a\"{2 , 4 }", "aaa");
    takes("root ::= \"a\"{0}\"b\"", "b");
    takes("root ::= (\n  \"a\"\n  | \"b\"\n  \"c\"\n)", "bc");
    takes("root ::= \"a\" |\n  \"b\"", "b");
    takes("root ::= \"a\"\r\n\r\nb ::= \"c\"\r\n", "a");
    takes("root ::= a\ra ::= \"x\"", "x");
    takes("root ::=\n \"x\"", "x");
    takes("root ::= Rule-1 0a -\nRule-1 ::= \"x\"\n0a ::= \"y\"\n- ::= \"z\"", "xyz");
    takes("root ::= \"\\x41\\u0416\\U0001F600\\t\\n\\r\\\\\\\"\\[\\]\"", "AЖ😀\t\n\r\\\"[]");
    takes("root ::= [\\x41\\u0416\\U0001F600\\]\\-a-c]{7}", "AЖ😀]-ab");
    takes("root ::= [a-]{2}", "-a");
    takes("root ::= [-a]{2}", "-a");
    takes("root ::= [a^]", "^");
    takes("root ::= \"\" \"a\" \"\"", "a");
    takes("root ::= ( )\n", "");
    takes("root ::=", "");
    takes("root ::= \"a\" |", "");
    takes("root ::= | \"a\"", "a");
    takes("root ::= . . .", "aЖ😀");
    takes("root ::= \"Ж\" [а-я]* \"😀\"", "Жизнь😀");
    takes("start ::= \"s\"", "s", "start");
    takes("root ::= [^\\x00-\\x1f]", "a");
    takes("root ::= \"a\"+?", "");
    takes("root ::= (\"a\" | \"b\"){3}", "aba");
}

void test_refusals() {
    refuses("", "line 1, column 1: found the end, expected a rule");
    refuses("root = \"a\"", "line 1, column 6: found '=', expected '::='");
    refuses("root ::= \"a", "line 1, column 12: found the end, expected '\"'");
    refuses("root ::= [a", "column 12: found the end, expected ']'");
    refuses("root ::= \"a\" )", "column 14: found ')', expected the end of the line");
    refuses("root ::= (\"a\"\n\nx ::= \"b\"", "line 3, column 3: found ':', expected ')'");
    refuses("root ::= \"a\"\n | \"b\"", "line 2, column 2: found '|', expected a rule; to go on");
    refuses("root ::= *", "column 10: found '*', expected something to repeat");
    refuses("root ::= \"a\"{,}", "found ',', expected a number");
    refuses("root ::= \"a\"{,10}", "found ',', expected a number");
    refuses("root ::= \"a\"{1", "found the end, expected ',' or '}'");
    refuses("root ::= \"a\"{1;2}", "found ';', expected ',' or '}'");
    refuses("root ::= \"a\"{4,2}", "upper bound 2 is below its lower bound 4");
    refuses("root ::= \"a\"{2000000}", "above the limit");
    refuses("root ::= \"a\"{99999999999999999999999}", "above the limit");
    refuses("root ::= [z-a]", "reversed");
    refuses("root ::= []", "column 10: the character class is empty");
    refuses("root ::= [^\\x01-\\U0010ffff]", "no character is in this character class");
    refuses("root ::= \"\\q\"", "column 12: found 'q', expected one of the escapes");
    refuses("root ::= \"\\x4\"", "expected 2 hexadecimal digits");
    refuses("root ::= \"\\ud800\"", "not a character of Unicode");
    refuses("root ::= \"\\U00110000\"", "not a character of Unicode");
    refuses("root ::= \"\\x00\"", "U+0000");
    refuses("root ::= \"\xff\"", "column 11: the bytes here are not UTF-8");
    refuses(std::string("root ::= \"a\0\"", 13), "NUL");
    refuses("root ::= my_rule", "found '_'");
    refuses("root ::= other", "line 1, column 10: rule 'other' is used here but defined nowhere");
    refuses("rot ::= \"a\"", "there is no rule 'root'");
    refuses("root ::= \"a\"", "there is no rule 'nonexistent'", "nonexistent");
    refuses("root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: rule 'root' is already defined in line 1");
    refuses("root ::= <[10]> \"a\"", "references to tokens");
    refuses("root ::= !<think>", "references to tokens");
    refuses("root ::= \"a\" root | \"b\" root", "can never end");
    refuses("root ::= x\nx ::= y\ny ::= \"a\" x", "can never end");
    std::string deep(5000, '(');
    refuses("root ::= " + deep + "\"a\"" + std::string(5000, ')'), "nested deeper");
    refuses(std::string((1U << 20U) + 1, '#'), "the limit is");
}

void test_left_recursion() {
    refuses("root ::= \"a\" | root \"a\"", "rule 'root' is left-recursive: root -> root");
    refuses("root ::= asdf\nasdf ::= \"a\" | asdf \"a\"", "asdf -> asdf");
    refuses("root ::= asdf\nasdf ::= \"a\" | foo \"b\"\nfoo ::= \"c\" | asdf \"d\" | \"e\"", "left-recursive");
    refuses(
        "root ::= asdf\nasdf ::= \"a\" | foo \"b\"\nfoo ::= \"c\" | empty asdf \"d\" | \"e\"\nempty ::= \"blah\" | ",
        "left-recursive");
    refuses("root ::= x\nx ::= e f x \"a\" | \"b\"\ne ::= f*\nf ::= \"q\"?", "left-recursive");
    refuses("root ::= (\"a\"? root)?", "left-recursive");
}

void test_unused() {
    const Grammar grammar("root ::= \"a\"\nother ::= \"b\"");
    CHECK(grammar.program().unused_rules == std::vector<std::string>{"other"});
}

}  // namespace

int main() {
    test_syntax();
    test_refusals();
    test_left_recursion();
    test_unused();
    return check_report();
}
