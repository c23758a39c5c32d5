#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/tests/test.h"

/* What `style` makes of one record. */
static void record_one(enum log_style style, const char *message, char *text, size_t size)
{
        int ends[2];
        assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        auto_fd reader = ends[0];
        auto_fd writer = ends[1];
        log_configure(&(struct log_settings){
                .fd = writer, .level = LOG_LEVEL_INFO, .style = style, .program = "isled" });
        log_info("%s", message);
        log_debug("not wanted");
        ssize_t n = read(reader, text, size - 1);
        text[n > 0 ? n : 0] = '\0';
        log_configure(&(struct log_settings){ .fd = 2, .level = LOG_LEVEL_INFO });
}

static void each_style_has_its_line(void **state)
{
        (void)state;
        char text[8192];
        record_one(LOG_STYLE_TEXT, "ready", text, sizeof(text));
        assert_string_equal(text, "isled: info: ready\n");
        record_one(LOG_STYLE_JOURNAL, "ready", text, sizeof(text));
        assert_string_equal(text, "<6>ready\n");
        record_one(LOG_STYLE_JSON, "a \"b\"\n", text, sizeof(text));
        assert_non_null(strstr(text, "\"msg\":\"a \\\"b\\\"\\u000a\""));
        record_one(LOG_STYLE_FIELDS, "a \"b\"", text, sizeof(text));
        assert_non_null(strstr(text, "Z\" level=info msg=\"a \\\"b\\\"\"\n"));
        assert_memory_equal(text, "time=\"", 6);
}

static void long_records_are_cut(void **state)
{
        (void)state;
        char message[5000], text[8192];
        memset(message, '\n', sizeof(message) - 1);
        message[sizeof(message) - 1] = '\0';
        record_one(LOG_STYLE_JSON, message, text, sizeof(text));
        assert_true(strlen(text) < 4096);
}

static void levels_have_names(void **state)
{
        (void)state;
        enum log_level level = LOG_LEVEL_ERROR;
        assert_int_equal(log_level_parse("debug", &level), 0);
        assert_int_equal(level, LOG_LEVEL_DEBUG);
        assert_int_equal(log_level_parse("loud", &level), -EINVAL);
        assert_int_equal(level, LOG_LEVEL_DEBUG);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_style_has_its_line),
                cmocka_unit_test(long_records_are_cut),
                cmocka_unit_test(levels_have_names),
        };
        return cmocka_run_group_tests_name("base-log", tests, NULL, NULL);
}
