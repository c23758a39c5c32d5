#include "vmm/snapshot/state.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/snapshot/layout.h"

#define MOMENT_MAX (INT64_MAX / 4) /* ns from now: what arithmetic on moments bears */

static uint64_t number(const uint8_t *at, unsigned size_bytes)
{
        uint64_t value = 0;
        for (unsigned i = 0; i < size_bytes; i++)
                value |= (uint64_t)at[i] << 8 * i;
        return value;
}

/* ---- the whole ---- */

static int check_sum(const char *file, const uint8_t *data, size_t size, struct err *err)
{
        uint32_t sum = state_sum(data, size), said = (uint32_t)number(data + STATE_SUM_AT, 4);
        if (sum == said)
                return 0;
        return err_plain(err, EBADMSG,
                         "snapshot '%s': its checksum is 0x%x, and that of its content 0x%x; it "
                         "was damaged: take another snapshot",
                         file, said, sum);
}

static int check_header(const char *file, const uint8_t *data, size_t size, struct err *err)
{
        if (size < STATE_HEADER_SIZE || memcmp(data, STATE_MAGIC, 8) != 0)
                return err_plain(err, EBADMSG,
                                 "snapshot '%s': no state of a machine (%zu bytes, which do not "
                                 "begin with " STATE_MAGIC " and a header)",
                                 file, size);
        uint64_t version = number(data + STATE_VERSION_AT, 4);
        if (version != STATE_VERSION)
                return err_plain(err, ENOTSUP,
                                 "snapshot '%s': version %llu, where this isle-vmm reads %u; "
                                 "restore it with the isle-vmm that saved it",
                                 file, (unsigned long long)version, STATE_VERSION);
        uint64_t total = number(data + STATE_TOTAL_AT, 8);
        if (total != size)
                return err_plain(err, EBADMSG,
                                 "snapshot '%s': %zu bytes, where its header says %llu; it was "
                                 "%s: take another snapshot",
                                 file, size, (unsigned long long)total,
                                 total > size ? "cut off" : "added to");
        if (number(data + STATE_ZERO_AT, 4) != 0 ||
            number(data + STATE_SECTIONS_AT, 4) > STATE_SECTIONS_MAX)
                return err_plain(err, EBADMSG, "snapshot '%s': %llu sections, where %u can be",
                                 file, (unsigned long long)number(data + STATE_SECTIONS_AT, 4),
                                 STATE_SECTIONS_MAX);
        return check_sum(file, data, size, err);
}

/* Letters, digits and -, a dot, a number; then NUL to the end. */
static bool is_name(const uint8_t *name)
{
        unsigned i = 0, dot = 0;
        while (i < STATE_NAME_SIZE && (isalnum(name[i]) || name[i] == '-' || name[i] == '.')) {
                if (name[i] == '.')
                        dot = i;
                i++;
        }
        if (i == STATE_NAME_SIZE || dot == 0 || dot + 1 == i)
                return false;
        while (i < STATE_NAME_SIZE && !name[i])
                i++;
        return i == STATE_NAME_SIZE;
}

static struct state_section *find(const struct state_reader *r, const char *name)
{
        for (unsigned i = 0; i < r->length; i++)
                if (streq(r->sections[i].name, name))
                        return &r->sections[i];
        return NULL;
}

/* One section at `at`; its length in *ret. */
static int read_section(struct state_reader *r, const uint8_t *at, size_t left, size_t *ret,
                        struct err *err)
{
        struct state_section s = { .file = r->file, .now_ns = r->now_ns };
        if (left < STATE_SECTION_HEADER || !is_name(at))
                return err_plain(err, EBADMSG,
                                 "snapshot '%s': section %u has no header with a name", r->file,
                                 r->length);
        memcpy(s.name, at, STATE_NAME_SIZE);
        s.version = (uint32_t)number(at + STATE_SECTION_VERSION_AT, 4);
        s.size = (size_t)number(at + STATE_SECTION_SIZE_AT, 4);
        s.data = at + STATE_SECTION_HEADER;
        left -= STATE_SECTION_HEADER;
        if (s.size > left)
                return err_plain(err, EBADMSG,
                                 "snapshot '%s': section '%s' is of %zu bytes, and %zu are left",
                                 r->file, s.name, s.size, left);
        if (find(r, s.name))
                return err_plain(err, EBADMSG, "snapshot '%s': section '%s' is there twice",
                                 r->file, s.name);
        r->sections[r->length++] = s;
        *ret = STATE_SECTION_HEADER + s.size;
        return 0;
}

static int read_sections(struct state_reader *reader, const uint8_t *data, size_t size,
                         unsigned length, struct err *err)
{
        size_t at = STATE_HEADER_SIZE;
        int r = 0;
        while (r == 0 && reader->length < length) {
                size_t step = 0;
                r = read_section(reader, data + at, size - at, &step, err);
                at += step;
        }
        if (r == 0 && at != size)
                r = err_plain(err, EBADMSG, "snapshot '%s': %zu bytes behind its last section",
                              reader->file, size - at);
        return r;
}

int state_reader_init(struct state_reader *reader, const char *file, const void *data, size_t size,
                      int64_t now_ns, struct err *err)
{
        int r = check_header(file, data, size, err);
        if (r < 0)
                return r;
        unsigned length = (unsigned)number((const uint8_t *)data + STATE_SECTIONS_AT, 4);
        struct state_reader new = { .file = file,
                                    .now_ns = now_ns,
                                    .sections = xcalloc(length + 1, sizeof(*new.sections)) };
        r = read_sections(&new, data, size, length, err);
        if (r < 0) {
                state_reader_finish(&new);
                return r;
        }
        *reader = new;
        return 0;
}

void state_reader_finish(struct state_reader *reader)
{
        free(reader->sections);
        *reader = (struct state_reader){ 0 };
}

int state_take(struct state_reader *reader, const char *kind, unsigned number, uint32_t version,
               struct state_section **ret, struct err *err)
{
        char name[STATE_NAME_SIZE];
        snprintf(name, sizeof(name), "%s.%u", kind, number);
        struct state_section *s = find(reader, name);
        if (!s || s->taken)
                return err_plain(err, ENOENT,
                                 "snapshot '%s': nothing of '%s', which this machine has; "
                                 "restore it with the configuration that it was saved with",
                                 reader->file, name);
        if (s->version > version || s->version == 0)
                return err_plain(err, ENOTSUP,
                                 "snapshot '%s': section '%s' is of version %u, where this "
                                 "isle-vmm reads 1 to %u; restore it with the isle-vmm that saved "
                                 "it",
                                 reader->file, name, s->version, version);
        s->taken = true;
        *ret = s;
        return 0;
}

int state_all_taken(const struct state_reader *reader, struct err *err)
{
        for (unsigned i = 0; i < reader->length; i++)
                if (!reader->sections[i].taken)
                        return err_plain(err, EBADMSG,
                                         "snapshot '%s': it has '%s', which this machine has not; "
                                         "restore it with the configuration that it was saved with",
                                         reader->file, reader->sections[i].name);
        return 0;
}

/* ---- values ---- */

static const uint8_t *take(struct state_section *s, size_t size)
{
        if (s->is_short || size > s->size - s->at) {
                s->is_short = true;
                return NULL;
        }
        s->at += size;
        return s->data + s->at - size;
}

static bool failed(const struct state_section *s)
{
        return s->is_short || s->bad;
}

uint64_t state_get(struct state_section *s, unsigned size_bytes)
{
        assert(size_bytes <= 8);
        const uint8_t *at = failed(s) ? NULL : take(s, size_bytes);
        return at ? number(at, size_bytes) : 0;
}

uint64_t state_get_max(struct state_section *s, const char *what, unsigned size_bytes, uint64_t max)
{
        uint64_t value = state_get(s, size_bytes);
        if (value <= max)
                return value;
        s->bad = what;
        s->bad_value = value;
        return 0;
}

void state_get_bytes(struct state_section *s, void *bytes, size_t size)
{
        const uint8_t *at = failed(s) ? NULL : take(s, size);
        if (at && size)
                memcpy(bytes, at, size);
        else if (size)
                memset(bytes, 0, size);
}

int64_t state_get_moment(struct state_section *s, const char *what)
{
        bool is_set = state_get_max(s, what, 1, 1);
        int64_t distance = (int64_t)state_get(s, 8);
        if (distance > MOMENT_MAX || distance < -MOMENT_MAX || (!is_set && distance)) {
                s->bad = what;
                s->bad_value = (uint64_t)distance;
                return 0;
        }
        if (!is_set || failed(s))
                return 0;
        int64_t moment = s->now_ns + distance;
        return moment ? moment : 1;
}

size_t state_left(const struct state_section *s)
{
        return failed(s) ? 0 : s->size - s->at;
}

int state_refuse(const struct state_section *s, struct err *err, const char *format, ...)
{
        va_list ap;
        va_start(ap, format);
        err_plainv(err, EBADMSG, format, ap);
        va_end(ap);
        err_wrap(err, "snapshot '%s': section '%s'", s->file, s->name);
        return -EBADMSG;
}

int state_end(const struct state_section *s, struct err *err)
{
        if (s->bad)
                return state_refuse(s, err, "%s is 0x%llx, which cannot be", s->bad,
                                    (unsigned long long)s->bad_value);
        if (s->is_short)
                return state_refuse(s, err, "its %zu bytes are less than version %u of it has",
                                    s->size, s->version);
        if (s->at != s->size)
                return state_refuse(s, err, "%zu of its bytes are left over", s->size - s->at);
        return 0;
}

/* ---- tables ---- */

static void get_field(struct state_section *s, const struct state_field *f, uint8_t *object)
{
        uint8_t *at = object ? object + f->offset : NULL;
        for (unsigned k = 0; k < f->length; k++) {
                uint64_t value = f->moment ? (uint64_t)state_get_moment(s, f->name)
                                           : state_get_max(s, f->name, f->size_bytes, f->max);
                if (at)
                        memcpy(at + (size_t)k * f->size_bytes, &value, f->size_bytes);
        }
}

void state_get_fields(struct state_section *s, void *object, const struct state_field *fields,
                      size_t length)
{
        size_t begin = s->at;
        for (size_t i = 0; i < length; i++)
                get_field(s, &fields[i], NULL);
        if (failed(s))
                return;
        s->at = begin;
        for (size_t i = 0; i < length; i++)
                get_field(s, &fields[i], object);
}
