#include "vmm/snapshot/state.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/snapshot/layout.h"

void state_writer_init(struct state_writer *w, int64_t now_ns)
{
        static const char zeros[STATE_HEADER_SIZE];
        *w = (struct state_writer){ .now_ns = now_ns, .buf.limit_bytes = STATE_SIZE_MAX };
        (void)buf_append(&w->buf, zeros, sizeof(zeros));
}

void state_writer_finish(struct state_writer *w)
{
        buf_finish(&w->buf);
}

void state_put_bytes(struct state_writer *w, const void *bytes, size_t size)
{
        if (size && buf_append(&w->buf, bytes, size) < 0)
                w->failed = true;
}

void state_put(struct state_writer *w, uint64_t value, unsigned size_bytes)
{
        uint8_t bytes[8];
        assert(size_bytes <= sizeof(bytes));
        for (unsigned i = 0; i < size_bytes; i++)
                bytes[i] = (uint8_t)(value >> 8 * i);
        state_put_bytes(w, bytes, size_bytes);
}

void state_put_moment(struct state_writer *w, int64_t moment_ns)
{
        state_put(w, moment_ns != 0, 1);
        state_put(w, moment_ns ? (uint64_t)(moment_ns - w->now_ns) : 0, 8);
}

void state_begin(struct state_writer *w, const char *kind, unsigned number, uint32_t version)
{
        char name[STATE_NAME_SIZE] = "";
        int n = snprintf(name, sizeof(name), "%s.%u", kind, number);
        assert(n > 0 && n < (int)sizeof(name));
        (void)n;
        if (++w->sections > STATE_SECTIONS_MAX)
                w->failed = true;
        w->section = w->buf.size;
        state_put_bytes(w, name, sizeof(name));
        state_put(w, version, 4);
        state_put(w, 0, 4); /* its size, later */
}

static void poke(struct state_writer *w, size_t at, uint64_t value, unsigned size_bytes)
{
        for (unsigned i = 0; i < size_bytes; i++)
                w->buf.data[at + i] = (char)(value >> 8 * i);
}

void state_close(struct state_writer *w)
{
        if (!w->failed)
                poke(w, w->section + STATE_SECTION_SIZE_AT,
                     w->buf.size - w->section - STATE_SECTION_HEADER, 4);
}

int state_seal(struct state_writer *w, const void **ret_data, size_t *ret_size, struct err *err)
{
        if (w->failed)
                return err_plain(err, EFBIG,
                                 "the machine's state is more than %u MiB in %u sections",
                                 STATE_SIZE_MAX >> 20, STATE_SECTIONS_MAX);
        memcpy(w->buf.data, STATE_MAGIC, 8);
        poke(w, STATE_VERSION_AT, STATE_VERSION, 4);
        poke(w, STATE_SECTIONS_AT, w->sections, 4);
        poke(w, STATE_TOTAL_AT, w->buf.size, 8);
        poke(w, STATE_SUM_AT, state_sum(w->buf.data, w->buf.size), 4);
        *ret_data = w->buf.data;
        *ret_size = w->buf.size;
        return 0;
}

/* ---- tables ---- */

static uint64_t value_at(const uint8_t *at, unsigned size_bytes)
{
        uint64_t value = 0;
        memcpy(&value, at, size_bytes);
        return value;
}

void state_put_fields(struct state_writer *w, const void *object, const struct state_field *fields,
                      size_t length)
{
        for (size_t i = 0; i < length; i++) {
                const struct state_field *f = &fields[i];
                const uint8_t *at = (const uint8_t *)object + f->offset;
                for (unsigned k = 0; k < f->length; k++, at += f->size_bytes) {
                        if (f->moment)
                                state_put_moment(w, (int64_t)value_at(at, 8));
                        else
                                state_put(w, value_at(at, f->size_bytes), f->size_bytes);
                }
        }
}
