#include "base/tests/test.h"

#include <errno.h>

#include "api/base64.h"
#include "base/auto.h"
#include "base/str.h"

static void test_known_answers(void **state)
{
        (void)state;
        const char *pairs[][2] = { { "", "" },
                                   { "f", "Zg==" },
                                   { "fo", "Zm8=" },
                                   { "foo", "Zm9v" },
                                   { "foob", "Zm9vYg==" },
                                   { "fooba", "Zm9vYmE=" },
                                   { "foobar", "Zm9vYmFy" },
                                   { "{}", "e30=" } };
        for (size_t i = 0; i < ELEMENTS(pairs); i++) {
                auto_free char *text = base64_encode(pairs[i][0], strlen(pairs[i][0]));
                auto_free char *data = NULL;
                size_t size = 99;
                assert_string_equal(text, pairs[i][1]);
                assert_int_equal(base64_decode(text, &data, &size), 0);
                assert_string_equal(data, pairs[i][0]);
                assert_int_equal(size, strlen(pairs[i][0]));
        }
}

static void test_both_alphabets_and_missing_padding(void **state)
{
        (void)state;
        const char *texts[] = { "+/+/", "-_-_" };
        for (size_t i = 0; i < ELEMENTS(texts); i++) {
                auto_free char *data = NULL;
                size_t size;
                assert_int_equal(base64_decode(texts[i], &data, &size), 0);
                assert_int_equal(size, 3);
                assert_memory_equal(data, "\xfb\xff\xbf", 3);
        }
        auto_free char *data = NULL;
        size_t size;
        assert_int_equal(base64_decode("e30", &data, &size), 0);
        assert_string_equal(data, "{}");
}

static void test_every_byte_survives(void **state)
{
        (void)state;
        uint8_t bytes[256];
        for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (uint8_t)i;
        for (size_t length = 250; length <= 256; length++) {
                auto_free char *text = base64_encode(bytes, length);
                auto_free char *data = NULL;
                size_t size;
                assert_int_equal(base64_decode(text, &data, &size), 0);
                assert_int_equal(size, length);
                assert_memory_equal(data, bytes, length);
        }
}

static void test_what_is_not_base64(void **state)
{
        (void)state;
        const char *bad[] = { "A", "AAAAA", "a b=", "{}{}", "Zg=g", "\xff\xff\xff\xff" };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                char *data = NULL;
                size_t size = 7;
                assert_int_equal(base64_decode(bad[i], &data, &size), -EINVAL);
                assert_null(data);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_known_answers),
                cmocka_unit_test(test_both_alphabets_and_missing_padding),
                cmocka_unit_test(test_every_byte_survives),
                cmocka_unit_test(test_what_is_not_base64),
        };
        return cmocka_run_group_tests_name("api-base64", tests, NULL, NULL);
}
