#include "codec/stdcopy.h"

#include <stdbool.h>

#include "base/buf.h"
#include "base/str.h"
#include "base/tests/test.h"

static int collect(void *arg, enum stdcopy_stream stream, const void *data, size_t size,
                   struct err *err)
{
        (void)err;
        struct buf *out = arg;
        buf_putc(&out[stream], '[');
        buf_append(&out[stream], data, size);
        buf_putc(&out[stream], ']');
        return 0;
}

static const char frames[] = "\1\0\0\0\0\0\0\2ab"
                             "\2\0\0\0\0\0\0\1E"
                             "\1\0\0\0\0\0\0\0"
                             "\1\0\0\0\0\0\0\3cde";

static void frames_are_taken_apart(void **state)
{
        (void)state;
        struct stdcopy copy = { 0 };
        struct buf out[4] = { 0 };
        assert_int_equal(stdcopy_feed(&copy, frames, sizeof(frames) - 1, collect, out, NULL), 0);
        assert_true(stdcopy_whole(&copy));
        assert_string_equal(buf_text(&out[STDCOPY_STDOUT]), "[ab][cde]");
        assert_string_equal(buf_text(&out[STDCOPY_STDERR]), "[E]");
        buf_finish(&out[STDCOPY_STDOUT]);
        buf_finish(&out[STDCOPY_STDERR]);
}

static void frames_may_come_in_any_pieces(void **state)
{
        (void)state;
        for (size_t step = 1; step < sizeof(frames) - 1; step++) {
                struct stdcopy copy = { 0 };
                struct buf out[4] = { 0 };
                for (size_t at = 0; at < sizeof(frames) - 1; at += step) {
                        size_t left = sizeof(frames) - 1 - at;
                        assert_int_equal(stdcopy_feed(&copy, frames + at, left < step ? left : step,
                                                      collect, out, NULL),
                                         0);
                }
                assert_true(stdcopy_whole(&copy));
                size_t letters = 0;
                for (const char *c = buf_text(&out[STDCOPY_STDOUT]); *c; c++)
                        letters += *c != '[' && *c != ']';
                assert_int_equal(letters, 5);
                for (int i = 0; i < 4; i++)
                        buf_finish(&out[i]);
        }
}

static void no_frames_are_refused(void **state)
{
        (void)state;
        static const char *const rows[] = { "\4\0\0\0\0\0\0\1x", "\1\1\0\0\0\0\0\1x",
                                            "HTTP/1.1 200 OK" };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct stdcopy copy = { 0 };
                struct buf out[4] = { 0 };
                assert_true(stdcopy_feed(&copy, rows[i], 9, collect, out, NULL) < 0);
        }
        struct stdcopy cut = { 0 };
        struct buf none[4] = { 0 };
        assert_int_equal(stdcopy_feed(&cut, frames, 9, collect, none, NULL), 0);
        assert_false(stdcopy_whole(&cut));
        buf_finish(&none[STDCOPY_STDOUT]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(frames_are_taken_apart),
                cmocka_unit_test(frames_may_come_in_any_pieces),
                cmocka_unit_test(no_frames_are_refused),
        };
        return cmocka_run_group_tests_name("codec-stdcopy", tests, NULL, NULL);
}
