#include "codec/json.h"

#include <stdint.h>

#include "base/str.h"
#include "base/tests/test.h"

struct inner {
        char *name;
        int32_t level;
};
static const struct json_field inner_fields[] = {
        JSON_FIELD(struct inner, "name", JSON_STRING, name, JSON_REQUIRED),
        JSON_FIELD(struct inner, "level", JSON_INT, level, 0),
};
static const struct json_shape inner_shape = JSON_SHAPE("inner", struct inner, inner_fields);

struct keyed {
        char *key;
        uint32_t weight;
};
static const struct json_field keyed_fields[] = {
        JSON_FIELD(struct keyed, "weight", JSON_UINT, weight, 0),
};
static const struct json_shape keyed_shape = JSON_SHAPE("keyed", struct keyed, keyed_fields);

enum color { COLOR_UNSET, COLOR_RED, COLOR_BLUE };
static const char *const color_names[] = { "", "red", "blue", NULL };

struct thing {
        bool on;
        int8_t i8;
        int64_t i64;
        uint16_t u16;
        uint64_t u64;
        double number;
        char *text;
        char **list, **command, **map, **set;
        struct inner inner, *pointer, *array;
        size_t array_length;
        struct keyed *keyed;
        size_t keyed_length;
        uint32_t *ids;
        size_t ids_length;
        int color;
        struct json_object *any;
        int32_t optional;
        bool has_optional;
};
static const struct json_field thing_fields[] = {
        JSON_FIELD(struct thing, "on", JSON_BOOL, on, 0),
        JSON_FIELD(struct thing, "i8", JSON_INT, i8, 0),
        JSON_FIELD(struct thing, "i64", JSON_INT, i64, 0),
        JSON_FIELD(struct thing, "u16", JSON_UINT, u16, 0),
        JSON_FIELD(struct thing, "u64", JSON_UINT, u64, 0),
        JSON_FIELD(struct thing, "number", JSON_DOUBLE, number, 0),
        JSON_FIELD(struct thing, "text", JSON_STRING, text, 0),
        JSON_FIELD(struct thing, "list", JSON_STRV, list, 0),
        JSON_FIELD(struct thing, "command", JSON_STRV, command, JSON_OR_STRING),
        JSON_FIELD(struct thing, "map", JSON_MAP, map, 0),
        JSON_FIELD(struct thing, "set", JSON_SET, set, 0),
        JSON_FIELD_STRUCT(struct thing, "inner", inner, &inner_shape, 0),
        JSON_FIELD_POINTER(struct thing, "pointer", pointer, &inner_shape, 0),
        JSON_FIELD_ARRAY(struct thing, "array", array, array_length, &inner_shape, 0),
        JSON_FIELD_KEYED(struct thing, "keyed", keyed, keyed_length, &keyed_shape, 0),
        JSON_FIELD_UINTV(struct thing, "ids", ids, ids_length, 0),
        JSON_FIELD_ENUM(struct thing, "color", color, color_names, 0),
        JSON_FIELD(struct thing, "any", JSON_ANY, any, 0),
        JSON_FIELD_OPT(struct thing, "optional", JSON_INT, optional, has_optional),
};
static const struct json_shape thing_shape = JSON_SHAPE("thing", struct thing, thing_fields);

#define FULL                                                                                       \
        "{\"on\":true,\"i8\":-128,\"i64\":-9223372036854775808,\"u16\":65535,"                     \
        "\"u64\":18446744073709551615,\"number\":0.5,\"text\":\"a/b\\n\\u00e9\","                  \
        "\"list\":[\"x\",\"\"],\"command\":[\"c\"],\"map\":{\"a\":\"1\",\"b=c\":\"d=e\"},"         \
        "\"set\":{\"80/tcp\":{}},\"inner\":{\"name\":\"n\",\"level\":-1},"                         \
        "\"pointer\":{\"name\":\"p\"},\"array\":[{\"name\":\"q\"},{\"name\":\"r\"}],"              \
        "\"keyed\":{\"k\":{\"weight\":7},\"l\":{}},\"ids\":[0,4294967295],\"color\":\"blue\","     \
        "\"any\":{\"z\":[null,1.5]},\"optional\":0}"

static void a_value_survives_encoding_and_decoding(void **state)
{
        (void)state;
        struct thing thing;
        struct err err = { 0 };

        assert_int_equal(json_decode_text(&thing_shape, FULL, strlen(FULL), &thing, &err), 0);
        assert_true(thing.on && thing.i8 == -128 && thing.i64 == INT64_MIN);
        assert_true(thing.u16 == UINT16_MAX && thing.u64 == UINT64_MAX);
        assert_string_equal(thing.text, "a/b\n\xc3\xa9");
        assert_int_equal(strv_length(thing.list), 2);
        assert_string_equal(json_map_get(thing.map, "a"), "1");
        assert_string_equal(thing.set[0], "80/tcp");
        assert_int_equal(thing.inner.level, -1);
        assert_string_equal(thing.array[1].name, "r");
        assert_string_equal(thing.keyed[0].key, "k");
        assert_int_equal(thing.keyed[0].weight, 7);
        assert_true(thing.ids_length == 2 && thing.ids[1] == UINT32_MAX);
        assert_int_equal(thing.color, COLOR_BLUE);
        assert_true(thing.has_optional && thing.optional == 0);

        auto_free char *text = json_encode_text(&thing_shape, &thing, false);
        assert_string_equal(text, "{\"on\":true,\"i8\":-128,\"i64\":-9223372036854775808,"
                                  "\"u16\":65535,\"u64\":18446744073709551615,\"number\":0.5,"
                                  "\"text\":\"a/b\\n\xc3\xa9\","
                                  "\"list\":[\"x\",\"\"],\"command\":[\"c\"],"
                                  "\"map\":{\"a\":\"1\",\"b=c\":\"d=e\"},"
                                  "\"set\":{\"80/tcp\":{}},\"inner\":{\"name\":\"n\",\"level\":-1},"
                                  "\"pointer\":{\"name\":\"p\"},"
                                  "\"array\":[{\"name\":\"q\"},{\"name\":\"r\"}],"
                                  "\"keyed\":{\"k\":{\"weight\":7},\"l\":{}},"
                                  "\"ids\":[0,4294967295],\"color\":\"blue\","
                                  "\"any\":{\"z\":[null,1.5]},\"optional\":0}");
        json_free(&thing_shape, &thing);
        struct thing zero;
        memset(&zero, 0, sizeof(zero));
        assert_memory_equal(&thing, &zero, sizeof(zero));
        auto_free char *empty = json_encode_text(&thing_shape, &zero, false);
        assert_string_equal(empty,
                            "{\"inner\":{\"name\":\"\"}}"); /* a required member is written */
}

static void null_is_absent_and_unknown_keys_are_ignored(void **state)
{
        (void)state;
        static const char text[] =
                "{\"on\":null,\"i8\":null,\"text\":null,\"list\":null,\"map\":null,"
                "\"pointer\":null,\"array\":null,\"color\":null,\"optional\":null,"
                "\"unknown\":{\"deep\":[1,2,{}]},\"u16\":1,\"u16\":2}";
        struct thing thing;
        struct err err = { 0 };

        assert_int_equal(json_decode_text(&thing_shape, text, strlen(text), &thing, &err), 0);
        assert_null(thing.text);
        assert_null(thing.list);
        assert_null(thing.pointer);
        assert_false(thing.has_optional);
        assert_int_equal(thing.u16, 2); /* the last one counts */
        json_free(&thing_shape, &thing);
}

static void an_empty_list_differs_from_an_absent_one(void **state)
{
        (void)state;
        static const char text[] = "{\"list\":[],\"command\":\"one\",\"map\":{}}";
        struct thing thing;

        assert_int_equal(json_decode_text(&thing_shape, text, strlen(text), &thing, NULL), 0);
        assert_non_null(thing.list);
        assert_null(thing.list[0]);
        assert_string_equal(thing.command[0], "one");
        assert_null(thing.command[1]);
        assert_non_null(thing.map);
        json_free(&thing_shape, &thing);
}

static void errors_carry_the_path(void **state)
{
        (void)state;
        static const struct {
                const char *text, *error;
        } rows[] = {
                { "[]", "thing: expected object, found array" },
                { "{\"on\":1}", "on: expected boolean, found number" },
                { "{\"i8\":128}", "i8: 128 is out of the range -128 … 127" },
                { "{\"i8\":-129}", "i8: -129 is out of the range -128 … 127" },
                { "{\"u16\":65536}", "u16: 65536 is out of the range 0 … 65535" },
                { "{\"u16\":-1}", "u16: -1 is out of the range 0 … 65535" },
                { "{\"u16\":1.0}", "u16: expected an integer, found 1.0" },
                { "{\"u16\":1e2}", "u16: expected an integer, found 1e2" },
                { "{\"u16\":\"1\"}", "u16: expected number, found string" },
                { "{\"i64\":9223372036854775808}",
                  "i64: 9223372036854775808 is out of the range -9223372036854775808 … "
                  "9223372036854775807" },
                { "{\"number\":1e999}", "number: number is too large" },
                { "{\"text\":{}}", "text: expected string, found object" },
                { "{\"list\":[\"a\",\"b\",7]}", "list[2]: expected string, found number" },
                { "{\"list\":[null]}", "list[0]: expected string, found null" },
                { "{\"list\":\"a\"}", "list: expected array, found string" },
                { "{\"map\":{\"k\":1}}", "map.k: expected string, found number" },
                { "{\"inner\":{}}", "inner.name: is missing" },
                { "{\"pointer\":{\"name\":3}}", "pointer.name: expected string, found number" },
                { "{\"array\":[{\"name\":\"a\"},{\"name\":null}]}", "array[1].name: is missing" },
                { "{\"array\":[null]}", "array[0]: expected object, found null" },
                { "{\"keyed\":{\"x\":{\"weight\":-1}}}",
                  "keyed.x.weight: -1 is out of the range 0 … 4294967295" },
                { "{\"ids\":[1,\"2\"]}", "ids[1]: expected number, found string" },
                { "{\"color\":\"green\"}", "color: unknown value 'green' (known: red, blue)" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct thing thing, zero;
                struct err err = { 0 };
                memset(&thing, 0xff, sizeof(thing));
                memset(&zero, 0, sizeof(zero));
                assert_true(json_decode_text(&thing_shape, rows[i].text, strlen(rows[i].text),
                                             &thing, &err) < 0);
                assert_string_equal(err.text, rows[i].error);
                assert_memory_equal(&thing, &zero, sizeof(zero));
        }
}

static void text_that_is_not_json_is_refused(void **state)
{
        (void)state;
        static const char *const rows[] = {
                "",
                " ",
                "{",
                "[1,]",
                "{\"a\":1,}",
                "{\"a\" 1}",
                "{a:1}",
                "{'a':1}",
                "[1] x",
                "[1][2]",
                "// x\n[]",
                "/* x */ []",
                "[NaN]",
                "[nan]",
                "[Infinity]",
                "[-Infinity]",
                "[True]",
                "[NULL]",
                "[nulll]",
                "[truefalse]",
                "[01]",
                "[-]",
                "[+1]",
                "[1.]",
                "[.5]",
                "[1e]",
                "[1e+]",
                "[0x10]",
                "[1 2]",
                "[\"a",
                "[\"\\x\"]",
                "[\"\\u12\"]",
                "[\"\\u0000\"]",
                "{\"a\\u0000b\":1}",
                "[\"a\nb\"]",
                "[\"\xff\"]",
                "[\"\xc0\x80\"]",
                "[\"\xed\xa0\x80\"]",
                "[\"\xf4\x90\x80\x80\"]",
                "[\"\xe2\x82\"]",
                "\xef\xbb\xbf[]",
                "]",
                "[}",
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct err err = { 0 };
                auto_json object = NULL;
                if (json_parse(rows[i], strlen(rows[i]), &object, &err) >= 0)
                        fail_msg("accepted: %s", rows[i]);
                assert_int_equal(err.code, EBADMSG);
        }
        auto_json object = NULL;
        assert_int_equal(json_parse("[\"a\0\"]", 6, &object, NULL), -EBADMSG);
        assert_int_equal(json_parse("[]\0", 3, &object, NULL), -EBADMSG);
        assert_null(object);
}

static void any_json_text_is_accepted(void **state)
{
        (void)state;
        static const char *const rows[] = {
                "0",
                "-0",
                "12",
                "1.5e-3",
                "\"x\"",
                "true",
                "null",
                " [ ] \r\n\t",
                "{\"a\":{}}",
                "[\"\\ud83d\\ude00\",\"\xf0\x9f\x98\x80\",\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]",
                "\"\\\\u0000\"", /* a backslash and five characters */
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct err err = { 0 };
                auto_json object = NULL;
                if (json_parse(rows[i], strlen(rows[i]), &object, &err) < 0)
                        fail_msg("%s: %s", rows[i], err.text);
        }
}

static void a_parse_error_says_where(void **state)
{
        (void)state;
        struct err err = { 0 };
        auto_json object = NULL;
        json_parse("{\n  \"a\": \"\xff\"\n}", 14, &object, &err);
        assert_string_equal(err.text, "not JSON: invalid UTF-8 in line 2 column 9");
}

/* `depth` nested arrays. */
static int parse_nested(size_t depth)
{
        auto_free char *text = xmalloc(2 * depth);
        auto_json object = NULL;
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        return json_parse(text, 2 * depth, &object, NULL);
}

static void depth_and_length_are_bounded(void **state)
{
        (void)state;
        struct thing thing;
        struct err err = { 0 };

        assert_int_equal(parse_nested(JSON_DEPTH_MAX - 1), 0);
        assert_true(parse_nested(JSON_DEPTH_MAX + 1) < 0);
        assert_true(parse_nested(1000000) < 0);

        size_t size = JSON_TEXT_SIZE_MAX + 1;
        auto_free char *blank = xmalloc(size);
        auto_json object = NULL;
        memset(blank, ' ', size);
        assert_int_equal(json_parse(blank, size, &object, NULL), -E2BIG);

        /* {"ids":[0,0,…]} with one element too many */
        auto_free char *many = xmalloc(2 * (JSON_LENGTH_MAX + 1) + 16);
        char *p = stpcpy(many, "{\"ids\":[0");
        for (size_t i = 0; i < JSON_LENGTH_MAX; i++)
                p = stpcpy(p, ",0");
        strcpy(p, "]}");
        assert_int_equal(json_decode_text(&thing_shape, many, strlen(many), &thing, &err), -E2BIG);
        assert_non_null(strstr(err.text, "ids: 65537 elements"));
}

static void a_pretty_text_is_indented(void **state)
{
        (void)state;
        struct inner inner = { (char *)"x", 2 };
        auto_free char *text = json_encode_text(&inner_shape, &inner, true);
        assert_string_equal(text, "{\n  \"name\": \"x\",\n  \"level\": 2\n}");
}

struct shown {
        char *text, **list, **map, **nulled;
        struct inner *array;
        size_t array_length;
        struct inner *pointer;
        int color;
        int32_t number;
        bool has_number, flag;
};
static const struct json_field shown_fields[] = {
        JSON_FIELD(struct shown, "text", JSON_STRING, text, JSON_KEEP_EMPTY),
        JSON_FIELD(struct shown, "list", JSON_STRV, list, JSON_KEEP_EMPTY),
        JSON_FIELD(struct shown, "map", JSON_MAP, map, JSON_KEEP_EMPTY),
        JSON_FIELD(struct shown, "nulled", JSON_STRV, nulled, JSON_KEEP_EMPTY | JSON_NULL),
        JSON_FIELD_ARRAY(struct shown, "array", array, array_length, &inner_shape, JSON_KEEP_EMPTY),
        JSON_FIELD_POINTER(struct shown, "pointer", pointer, &inner_shape, JSON_KEEP_EMPTY),
        JSON_FIELD_ENUM(struct shown, "color", color, color_names, JSON_KEEP_EMPTY),
        JSON_FIELD_OPT(struct shown, "number", JSON_INT, number, has_number),
        JSON_FIELD(struct shown, "flag", JSON_BOOL, flag, JSON_KEEP_EMPTY),
};
static const struct json_shape shown_shape = JSON_SHAPE("shown", struct shown, shown_fields);

static void empty_members_are_written_where_asked(void **state)
{
        (void)state;
        struct shown shown = { 0 };
        auto_free char *text = json_encode_text(&shown_shape, &shown, false);
        assert_string_equal(text, "{\"text\":\"\",\"list\":[],\"map\":{},\"nulled\":null,"
                                  "\"array\":[],\"pointer\":null,\"color\":\"\",\"flag\":false}");
        struct shown back;
        assert_int_equal(json_decode_text(&shown_shape, text, strlen(text), &back, NULL), 0);
        assert_int_equal(back.color, COLOR_UNSET); /* "" reads as unset */
        json_free(&shown_shape, &back);
}

static void map_keys_may_hold_an_equals_sign(void **state)
{
        (void)state;
        auto_strv map = NULL;
        const char *value;

        json_map_set(&map, "plain", "1");
        json_map_set(&map, "a=b", "2=3");
        json_map_set(&map, "a", "4");
        json_map_set(&map, "plain", "5");
        assert_int_equal(strv_length(map), 3);
        assert_string_equal(map[0], "plain=5");
        assert_string_equal(json_map_get(map, "a=b"), "2=3");
        assert_string_equal(json_map_get(map, "a"), "4");
        assert_null(json_map_get(map, "pla"));
        auto_free char *key = json_map_split(map[1], &value);
        assert_string_equal(key, "a=b");
        assert_string_equal(value, "2=3");
        json_map_remove(map, "a=b");
        assert_int_equal(strv_length(map), 2);
        assert_null(json_map_get(map, "a=b"));
        assert_string_equal(json_map_get(map, "a"), "4");
        json_map_remove(NULL, "x");
        assert_null(json_map_get(NULL, "x"));
}

/* A struct so large that three characters of text, "{},", would take 4 KiB. */
struct padded {
        char bytes[4096];
        bool on;
};
static const struct json_field padded_fields[] = {
        JSON_FIELD(struct padded, "on", JSON_BOOL, on, 0),
};
static const struct json_shape padded_shape = JSON_SHAPE("padded", struct padded, padded_fields);

struct table {
        struct padded *rows;
        size_t rows_length;
};
static const struct json_field table_fields[] = {
        JSON_FIELD_ARRAY(struct table, "rows", rows, rows_length, &padded_shape, 0),
};
static const struct json_shape table_shape = JSON_SHAPE("table", struct table, table_fields);

static int decode_rows(size_t length, struct table *table, struct err *err)
{
        auto_free char *text = xmalloc(length * 3 + 16);
        char *p = stpcpy(text, "{\"rows\":[{}");
        for (size_t i = 1; i < length; i++)
                p = stpcpy(p, ",{}");
        strcpy(p, "]}");
        return json_decode_text(&table_shape, text, strlen(text), table, err);
}

static void a_value_cannot_take_endless_memory(void **state)
{
        (void)state;
        struct table table;
        struct err err = { 0 };

        assert_int_equal(decode_rows(1000, &table, &err), 0);
        assert_int_equal(table.rows_length, 1000);
        json_free(&table_shape, &table);
        assert_int_equal(decode_rows(20000, &table, &err), -E2BIG);
        assert_non_null(strstr(err.text, "rows: the whole needs more memory than the limit"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_value_survives_encoding_and_decoding),
                cmocka_unit_test(null_is_absent_and_unknown_keys_are_ignored),
                cmocka_unit_test(an_empty_list_differs_from_an_absent_one),
                cmocka_unit_test(errors_carry_the_path),
                cmocka_unit_test(text_that_is_not_json_is_refused),
                cmocka_unit_test(any_json_text_is_accepted),
                cmocka_unit_test(a_parse_error_says_where),
                cmocka_unit_test(depth_and_length_are_bounded),
                cmocka_unit_test(a_pretty_text_is_indented),
                cmocka_unit_test(empty_members_are_written_where_asked),
                cmocka_unit_test(map_keys_may_hold_an_equals_sign),
                cmocka_unit_test(a_value_cannot_take_endless_memory),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
