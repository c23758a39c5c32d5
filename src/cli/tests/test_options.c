#include "cli/options.h"

#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "cli/command.h"
#include "cli/spec.h"

static const struct option table[] = {
        { .name = "env", .letter = 'e', .kind = OPTION_LIST, .help = "h" },
        { .name = "interactive", .letter = 'i', .kind = OPTION_BOOL, .help = "h" },
        { .name = "memory", .letter = 'm', .kind = OPTION_BYTES, .help = "h" },
        { .name = "pids", .kind = OPTION_INT, .initial = "7", .help = "h" },
        { .name = "proxy", .kind = OPTION_BOOL, .initial = "true", .help = "h" },
        { .name = "tty", .letter = 't', .kind = OPTION_BOOL, .help = "h" },
        { .name = "wait", .kind = OPTION_DURATION, .help = "h" },
        { .name = "weight", .kind = OPTION_DECIMAL, .help = "h" },
        { 0 },
};

/* Parses blank-separated words; "" stands for an empty word as "''". */
static int parse(const char *line, bool stop_early, struct args *args, char ***words,
                 struct err *err)
{
        *words = *line ? str_split(line, ' ') : NULL;
        for (char **word = *words; word && *word; word++)
                if (streq(*word, "''"))
                        **word = '\0';
        return args_parse(table, stop_early, (int)strv_length(*words), *words, args, err);
}

static void values_in_every_spelling(void **state)
{
        (void)state;
        static const char *const lines[] = {
                "--memory 1k", "--memory=1k", "-m 1k",   "-m1k",
                "-m=1k",       "-itm 1k",     "-itm=1k", "-m 5 -m 1k",
        };
        for (size_t i = 0; i < ELEMENTS(lines); i++) {
                auto_args args = { 0 };
                auto_strv words = NULL;
                assert_int_equal(parse(lines[i], false, &args, &words, NULL), 0);
                assert_true(args_given(&args, "memory"));
                assert_int_equal(args_int(&args, "memory"), 1024);
                assert_int_equal(args.length, 0);
        }
}

static void defaults_and_booleans(void **state)
{
        (void)state;
        auto_args args = { 0 };
        auto_strv words = NULL;
        assert_int_equal(
                parse("-it=false --proxy=0 --weight 1.5 --wait 1m30s", false, &args, &words, NULL),
                0);
        assert_true(args_bool(&args, "interactive"));
        assert_false(args_bool(&args, "tty"));
        assert_false(args_bool(&args, "proxy"));
        assert_int_equal(args_int(&args, "pids"), 7);
        assert_null(args_text(&args, "memory"));
        assert_true(args_decimal(&args, "weight") == 1.5);
        assert_true(args_duration(&args, "wait") == 90000000000);
        assert_null(args_list(&args, "env")[0]);

        auto_args none = { 0 };
        auto_strv no_words = NULL;
        assert_int_equal(parse("", false, &none, &no_words, NULL), 0);
        assert_true(args_bool(&none, "proxy"));
}

static void lists_keep_their_order(void **state)
{
        (void)state;
        auto_args args = { 0 };
        auto_strv words = NULL;
        assert_int_equal(parse("-e a -e=b --env c -e '' x", false, &args, &words, NULL), 0);
        char *const *list = args_list(&args, "env");
        assert_string_equal(list[0], "a");
        assert_string_equal(list[1], "b");
        assert_string_equal(list[2], "c");
        assert_string_equal(list[3], "");
        assert_null(list[4]);
}

static void what_follows_the_first_argument(void **state)
{
        (void)state;
        auto_args early = { 0 }, late = { 0 }, dashes = { 0 };
        auto_strv a = NULL;
        auto_strv b = NULL;
        auto_strv c = NULL;
        assert_int_equal(parse("-i image -t --nonsense", true, &early, &a, NULL), 0);
        assert_true(args_bool(&early, "interactive"));
        assert_false(args_bool(&early, "tty"));
        assert_int_equal(early.length, 3);
        assert_string_equal(early.rest[2], "--nonsense");

        assert_int_equal(parse("x -t - y", false, &late, &b, NULL), 0);
        assert_true(args_bool(&late, "tty"));
        assert_int_equal(late.length, 3);
        assert_string_equal(late.rest[1], "-");

        assert_int_equal(parse("-i -- -t", false, &dashes, &c, NULL), 0);
        assert_false(args_bool(&dashes, "tty"));
        assert_string_equal(dashes.rest[0], "-t");
}

static void mistakes_read_as_docker_says_them(void **state)
{
        (void)state;
        static const struct {
                const char *line, *text;
        } rows[] = {
                { "--foo", "unknown flag: --foo" },
                { "--foo=1", "unknown flag: --foo" },
                { "-iz", "unknown shorthand flag: 'z' in -iz" },
                { "--memory", "flag needs an argument: --memory" },
                { "-ie", "flag needs an argument: 'e' in -ie" },
                { "-m x", "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'" },
                { "--wait 3",
                  "invalid argument \"3\" for \"--wait\" flag: missing unit in duration \"3\"" },
                { "--pids x",
                  "invalid argument \"x\" for \"--pids\" flag: must be a whole number" },
                { "--tty=maybe",
                  "invalid argument \"maybe\" for \"-t, --tty\" flag: must be true or false" },
                { "--weight nan", "invalid argument \"nan\" for \"--weight\" flag: failed to parse "
                                  "nan as a rational number" },
                { "--=x", "bad flag syntax: --=x" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                auto_args args = { 0 };
                auto_strv words = NULL;
                struct err err = { 0 };
                assert_true(parse(rows[i].line, false, &args, &words, &err) < 0);
                assert_string_equal(err_text(&err), rows[i].text);
        }
}

static void help_is_asked_for(void **state)
{
        (void)state;
        static const char *const lines[] = { "--help", "-h", "-ih", "x --help" };
        for (size_t i = 0; i < ELEMENTS(lines); i++) {
                auto_args args = { 0 };
                auto_strv words = NULL;
                assert_int_equal(parse(lines[i], false, &args, &words, NULL), 0);
                assert_true(args.help);
        }
}

/* --- the real tables --- */

static void tables_are_sound(void **state)
{
        (void)state;
        for (size_t i = 0; i < commands_length; i++) {
                const struct option *options = commands[i].options;
                assert_non_null(commands[i].run);
                assert_true(commands[i].least <= commands[i].most);
                for (const struct option *row = options; row && row->name; row++) {
                        assert_ptr_equal(option_find(options, row->name, strlen(row->name)), row);
                        if (row->letter)
                                assert_ptr_equal(option_find_letter(options, row->letter), row);
                        assert_true((row->flags & OPTION_HIDDEN) || row->help);
                        assert_true(row->completion != COMPLETE_WORDS || row->words);
                }
        }
}

static void paths_are_unique(void **state)
{
        (void)state;
        for (size_t i = 0; i < commands_length; i++) {
                const char *cursor = NULL, *path;
                size_t length;
                while (command_next_path(&commands[i], &cursor, &path, &length)) {
                        auto_free char *text = xstrndup(path, length);
                        auto_strv words = str_split(text, ' ');
                        int used;
                        const char *found_path;
                        size_t found_length;
                        assert_ptr_equal(command_find((int)strv_length(words), words, &used,
                                                      &found_path, &found_length),
                                         &commands[i]);
                        assert_int_equal(used, strv_length(words));
                        assert_true(strv_length(words) == 1 || command_group_find(words[0]));
                }
        }
}

static void run_create_and_update_share_one_table(void **state)
{
        (void)state;
        assert_string_equal(create_options[0].name, "add-host");
        assert_string_equal(update_options[0].name, "blkio-weight");
        assert_null(update_options[UPDATE_OPTIONS_LENGTH - 1].name);
        assert_string_equal(update_options[UPDATE_OPTIONS_LENGTH - 2].name, "restart");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(values_in_every_spelling),
                cmocka_unit_test(defaults_and_booleans),
                cmocka_unit_test(lists_keep_their_order),
                cmocka_unit_test(what_follows_the_first_argument),
                cmocka_unit_test(mistakes_read_as_docker_says_them),
                cmocka_unit_test(help_is_asked_for),
                cmocka_unit_test(tables_are_sound),
                cmocka_unit_test(paths_are_unique),
                cmocka_unit_test(run_create_and_update_share_one_table),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
