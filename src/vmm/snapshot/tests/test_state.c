#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/snapshot/state.h"
#include "vmm/snapshot/tests/mend.h"

#define NOW   1000000
#define LATER 9000000

struct part {
        bool on;
        uint16_t counts[3];
        uint64_t wide;
        int64_t due_ns, never_ns;
};

static const struct state_field fields[] = {
        STATE_FIELD(struct part, on, 1),
        STATE_ARRAY(struct part, counts, 0x7fff),
        STATE_FIELD(struct part, wide, UINT64_MAX),
        STATE_MOMENT(struct part, due_ns),
        STATE_MOMENT(struct part, never_ns),
};

/* Of sections part.0 and part.1; the caller frees it. */
static uint8_t *sample(size_t *ret_size, uint16_t count)
{
        struct state_writer w;
        struct err err = { 0 };
        const void *data = NULL;
        const struct part part = { true, { 1, 2, count }, 0x1122334455667788, NOW + 500, 0 };
        state_writer_init(&w, NOW);
        for (unsigned i = 0; i < 2; i++) {
                state_begin(&w, "part", i, 2);
                state_put_fields(&w, &part, fields, ELEMENTS(fields));
                state_put_bytes(&w, "tail", 4);
                state_close(&w);
        }
        if (state_seal(&w, &data, ret_size, &err) < 0)
                fail_msg("%s", err_text(&err));
        uint8_t *copy = xmemdup(data, *ret_size);
        state_writer_finish(&w);
        return copy;
}

static void refused(const uint8_t *data, size_t size, int code, const char *text)
{
        struct state_reader reader = { 0 };
        struct err err = { 0 };
        assert_int_equal(state_reader_init(&reader, "dir/state", data, size, LATER, &err), -code);
        if (!strstr(err_text(&err), text) || !strstr(err_text(&err), "dir/state"))
                fail_msg("'%s' is not in '%s'", text, err_text(&err));
}

static void what_is_written_is_read(void **state)
{
        (void)state;
        size_t size;
        auto_free uint8_t *data = sample(&size, 3);
        struct state_reader reader = { 0 };
        struct state_section *s = NULL;
        struct err err = { 0 };
        struct part part = { 0 };
        char tail[5] = "";
        assert_int_equal(state_reader_init(&reader, "f", data, size, LATER, &err), 0);
        assert_int_equal(state_take(&reader, "part", 1, 2, &s, &err), 0);
        state_get_fields(s, &part, fields, ELEMENTS(fields));
        assert_int_equal(state_left(s), 4);
        state_get_bytes(s, tail, 4);
        assert_int_equal(state_end(s, &err), 0);
        assert_true(part.on);
        assert_int_equal(part.counts[2], 3);
        assert_int_equal(part.wide, 0x1122334455667788);
        assert_int_equal(part.due_ns, LATER + 500);
        assert_int_equal(part.never_ns, 0);
        assert_string_equal(tail, "tail");
        assert_int_equal(state_all_taken(&reader, &err), -EBADMSG);
        assert_non_null(strstr(err_text(&err), "'part.0'"));
        assert_int_equal(state_take(&reader, "part", 1, 2, &s, &err), -ENOENT);
        assert_int_equal(state_take(&reader, "part", 0, 1, &s, &err), -ENOTSUP);
        assert_int_equal(state_take(&reader, "part", 0, 7, &s, &err), 0);
        assert_int_equal(s->version, 2);
        assert_int_equal(state_all_taken(&reader, &err), 0);
        state_reader_finish(&reader);
}

static void bad_and_missing_values_are_told(void **state)
{
        (void)state;
        size_t size;
        auto_free uint8_t *data = sample(&size, 0x8000);
        struct state_reader reader = { 0 };
        struct state_section *s = NULL;
        struct err err = { 0 };
        struct part part = { 0 };
        assert_int_equal(state_reader_init(&reader, "f", data, size, LATER, &err), 0);
        assert_int_equal(state_take(&reader, "part", 0, 2, &s, &err), 0);
        state_get_fields(s, &part, fields, ELEMENTS(fields));
        assert_false(part.on); /* nothing was stored */
        assert_int_equal(state_end(s, &err), -EBADMSG);
        assert_non_null(strstr(err_text(&err), "'part.0': counts is 0x8000"));
        assert_int_equal(state_take(&reader, "part", 1, 2, &s, &err), 0);
        assert_int_equal(state_end(s, &err), -EBADMSG);
        assert_non_null(strstr(err_text(&err), "left over"));
        for (unsigned i = 0; i < 100; i++)
                (void)state_get(s, 8);
        assert_int_equal(state_end(s, &err), -EBADMSG);
        assert_non_null(strstr(err_text(&err), "less than version 2"));
        state_reader_finish(&reader);
}

static void damage_is_refused(void **state)
{
        (void)state;
        size_t size;
        auto_free uint8_t *data = sample(&size, 3);
        size_t second = STATE_HEADER_SIZE + (size - STATE_HEADER_SIZE) / 2;
        for (size_t n = 0; n < size; n++)
                refused(data, n, EBADMSG, n < STATE_HEADER_SIZE ? "no state" : "cut off");
        data[STATE_HEADER_SIZE + 60] ^= 1;
        refused(data, size, EBADMSG, "checksum");
        data[STATE_HEADER_SIZE + 60] ^= 1;
        data[STATE_VERSION_AT] = 2;
        refused(data, size, ENOTSUP, "version 2");
        data[STATE_VERSION_AT] = 1;
        data[STATE_SECTIONS_AT] = 1;
        refused(data, size, EBADMSG, "behind its last section");
        data[STATE_SECTIONS_AT] = 3;
        refused(data, size, EBADMSG, "section 2 has no header");
        data[STATE_SECTIONS_AT] = 2;
        data[second + 5] = '0';
        state_mend(data, size);
        refused(data, size, EBADMSG, "'part.0' is there twice");
        data[second + 5] = '1';
        data[second + STATE_SECTION_SIZE_AT]++;
        state_mend(data, size);
        refused(data, size, EBADMSG, "'part.1' is of");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_written_is_read),
                cmocka_unit_test(bad_and_missing_values_are_told),
                cmocka_unit_test(damage_is_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
