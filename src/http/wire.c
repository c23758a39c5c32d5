#include "http/wire.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"

#define CHUNK_DIGITS_LIMIT         15u   /* a chunk size always fits 64 bits */
#define CHUNK_OVERHEAD_LIMIT_BYTES 8192u /* of one extension, or of all trailers */

static bool is_token_char(unsigned char c)
{
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               (c && strchr("!#$%&'*+-.^_`|~", c));
}

bool wire_is_token(const char *text)
{
        if (!*text)
                return false;
        for (; *text; text++)
                if (!is_token_char((unsigned char)*text))
                        return false;
        return true;
}

bool wire_is_value(const char *text)
{
        for (; *text; text++) {
                unsigned char c = (unsigned char)*text;
                if ((c < 0x20 && c != '\t') || c == 0x7f)
                        return false;
        }
        return true;
}

size_t wire_head_size(const char *bytes, size_t size, size_t *scanned)
{
        /* The mark may straddle what was searched before. */
        size_t from = *scanned > 3 ? *scanned - 3 : 0;
        const char *mark = size > from ? memmem(bytes + from, size - from, "\r\n\r\n", 4) : NULL;
        if (mark)
                return (size_t)(mark - bytes) + 4;
        *scanned = size;
        return 0;
}

const char *wire_field(const struct wire_head *head, const char *name)
{
        for (size_t i = 0; i < head->length; i++)
                if (strcasecmp(head->fields[i].name, name) == 0)
                        return head->fields[i].value;
        return NULL;
}

bool wire_has_token(const char *list, const char *token)
{
        size_t length = strlen(token);
        for (const char *p = list; p && *p;) {
                p += strspn(p, " \t,");
                size_t item = strcspn(p, ",");
                size_t trimmed = item;
                while (trimmed > 0 && strchr(" \t", p[trimmed - 1]))
                        trimmed--;
                if (trimmed == length && strncasecmp(p, token, length) == 0)
                        return true;
                p += item;
        }
        return false;
}

/* Cuts the next line off the text; NULL at the empty one, or where the line has a
 * bare CR or LF or a NUL. */
static char *next_line(char **cursor)
{
        char *line = *cursor;
        size_t length = strcspn(line, "\r\n");
        if (line[length] != '\r' || line[length + 1] != '\n')
                return NULL;
        line[length] = '\0';
        *cursor = line + length + 2;
        return line;
}

static int parse_field(char *line, struct wire_head *head)
{
        if (head->length == WIRE_FIELDS_LIMIT)
                return -E2BIG;
        char *colon = strchr(line, ':');
        if (!colon)
                return -EBADMSG;
        *colon = '\0';
        char *value = colon + 1 + strspn(colon + 1, " \t");
        size_t length = strlen(value);
        while (length > 0 && (value[length - 1] == ' ' || value[length - 1] == '\t'))
                value[--length] = '\0';
        if (!wire_is_token(line) || !wire_is_value(value))
                return -EBADMSG;
        head->fields[head->length++] = (struct wire_field){ line, value };
        return 0;
}

/* Digits only, and the same number however often it is said. */
static int parse_content_length(const struct wire_head *head, bool *ret_present, uint64_t *ret)
{
        bool present = false;
        uint64_t value = 0;
        for (size_t i = 0; i < head->length; i++) {
                if (strcasecmp(head->fields[i].name, "Content-Length") != 0)
                        continue;
                uint64_t this;
                if (str_to_u64(head->fields[i].value, &this) < 0 || this > INT64_MAX ||
                    (present && this != value))
                        return -EBADMSG;
                present = true;
                value = this;
        }
        *ret_present = present;
        *ret = value;
        return 0;
}

/* What the fields say about framing and connection, for both kinds of message. */
static int interpret_fields(struct wire_head *head)
{
        const char *coding = NULL;
        const char *upgrade = wire_field(head, "Upgrade");
        const char *expect = wire_field(head, "Expect");
        bool keep_alive = false, connection_upgrade = false, has_length;

        for (size_t i = 0; i < head->length; i++) {
                const struct wire_field *field = &head->fields[i];
                if (strcasecmp(field->name, "Connection") == 0) {
                        head->close |= wire_has_token(field->value, "close");
                        keep_alive |= wire_has_token(field->value, "keep-alive");
                        connection_upgrade |= wire_has_token(field->value, "upgrade");
                } else if (strcasecmp(field->name, "Transfer-Encoding") == 0) {
                        if (coding)
                                return -EBADMSG;
                        coding = field->value;
                }
        }
        if (head->http10 && !keep_alive)
                head->close = true;
        head->upgrade = connection_upgrade && upgrade && *upgrade;
        head->expect_continue = expect && strcasecmp(expect, "100-continue") == 0;
        int r = parse_content_length(head, &has_length, &head->content_length);
        if (r < 0)
                return r;
        if (coding) {
                if (has_length || head->http10 || strcasecmp(coding, "chunked") != 0)
                        return -EBADMSG;
                head->framing = WIRE_CHUNKED;
        } else if (has_length) {
                head->framing = head->content_length > 0 ? WIRE_LENGTH : WIRE_NONE;
        } else {
                head->framing = WIRE_NONE;
        }
        return 0;
}

static int parse_fields(char *cursor, const char *end, struct wire_head *head)
{
        for (;;) {
                char *line = next_line(&cursor);
                if (!line)
                        return -EBADMSG;
                if (!*line)
                        break;
                int r = parse_field(line, head);
                if (r < 0)
                        return r;
        }
        return cursor == end ? interpret_fields(head) : -EBADMSG;
}

/* "HTTP/1.x" */
static int parse_version(const char *text, struct wire_head *head)
{
        if (streq(text, "HTTP/1.0"))
                head->http10 = true;
        else if (!str_starts(text, "HTTP/1.") || text[7] < '1' || text[7] > '9' || text[8])
                return -EBADMSG;
        return 0;
}

/* A head ends in CRLF CRLF; that is what keeps next_line() inside of it. */
static bool ends_well(const char *text, size_t size)
{
        return size >= 4 && memcmp(text + size - 4, "\r\n\r\n", 4) == 0;
}

int wire_parse_request(char *text, size_t size, struct wire_head *ret)
{
        struct wire_head *head = ret;
        char *cursor = text;
        memset(head, 0, offsetof(struct wire_head, fields));
        head->length = 0;
        if (!ends_well(text, size))
                return -EBADMSG;

        char *line = next_line(&cursor);
        char *target = line ? strchr(line, ' ') : NULL;
        char *version = target ? strchr(target + 1, ' ') : NULL;
        if (!version)
                return -EBADMSG;
        *target++ = '\0';
        *version++ = '\0';
        if (!wire_is_token(line) || *target != '/' || !wire_is_value(target) ||
            strchr(target, '\t') || parse_version(version, head) < 0)
                return -EBADMSG;
        head->method = line;
        head->target = target;
        return parse_fields(cursor, text + size, head);
}

int wire_parse_reply(char *text, size_t size, bool to_head, struct wire_head *ret)
{
        struct wire_head *head = ret;
        char *cursor = text;
        memset(head, 0, offsetof(struct wire_head, fields));
        head->length = 0;
        if (!ends_well(text, size))
                return -EBADMSG;

        char *line = next_line(&cursor);
        char *status = line ? strchr(line, ' ') : NULL;
        if (!status)
                return -EBADMSG;
        *status++ = '\0';
        if (parse_version(line, head) < 0 || strspn(status, "0123456789") != 3 ||
            (status[3] && status[3] != ' ') || status[0] == '0')
                return -EBADMSG;
        head->status = (status[0] - '0') * 100 + (status[1] - '0') * 10 + (status[2] - '0');

        int r = parse_fields(cursor, text + size, head);
        if (r < 0)
                return r;
        bool has_length = wire_field(head, "Content-Length");
        if (to_head || head->status / 100 == 1 || head->status == 204 || head->status == 304) {
                head->framing = WIRE_NONE;
        } else if (head->framing == WIRE_NONE && !has_length) {
                head->framing = WIRE_CLOSE;
                head->close = true;
        }
        return 0;
}

/* --- chunks --- */

enum chunk_state {
        CHUNK_SIZE,      /* hexadecimal digits */
        CHUNK_EXTENSION, /* until CR */
        CHUNK_SIZE_LF,
        CHUNK_DATA,
        CHUNK_DATA_CR,
        CHUNK_DATA_LF,
        CHUNK_TRAILER_START, /* at the start of a line after the last chunk */
        CHUNK_TRAILER,
        CHUNK_TRAILER_LF,
        CHUNK_END_LF,
};

/* In the size line: another digit, or what follows the digits. */
static int chunk_size_char(struct wire_chunks *chunks, char c)
{
        int digit = str_hex_digit(c);
        if (digit >= 0) {
                if (++chunks->digits > CHUNK_DIGITS_LIMIT)
                        return -EBADMSG;
                chunks->remaining = chunks->remaining << 4 | (unsigned)digit;
                return 0;
        }
        if (chunks->digits == 0 || !strchr("\r; \t", c) || !c)
                return -EBADMSG;
        chunks->overhead_bytes = 0;
        chunks->state = c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
        return 0;
}

static int chunk_expect(struct wire_chunks *chunks, char c, char wanted, enum chunk_state next)
{
        if (c != wanted)
                return -EBADMSG;
        chunks->state = next;
        return 0;
}

/* Text that is skipped up to its CR: extensions and trailers. */
static int chunk_skip(struct wire_chunks *chunks, char c, enum chunk_state after_cr)
{
        if (++chunks->overhead_bytes > CHUNK_OVERHEAD_LIMIT_BYTES || c == '\n' || !c)
                return -EBADMSG;
        if (c == '\r')
                chunks->state = after_cr;
        return 0;
}

/* One byte of framing. */
static int chunk_char(struct wire_chunks *chunks, char c)
{
        int r;
        switch ((enum chunk_state)chunks->state) {
        case CHUNK_SIZE:
                return chunk_size_char(chunks, c);
        case CHUNK_EXTENSION:
                return chunk_skip(chunks, c, CHUNK_SIZE_LF);
        case CHUNK_SIZE_LF:
                chunks->digits = 0;
                if (chunks->remaining > 0)
                        return chunk_expect(chunks, c, '\n', CHUNK_DATA);
                chunks->overhead_bytes = 0;
                return chunk_expect(chunks, c, '\n', CHUNK_TRAILER_START);
        case CHUNK_DATA_CR:
                return chunk_expect(chunks, c, '\r', CHUNK_DATA_LF);
        case CHUNK_DATA_LF:
                return chunk_expect(chunks, c, '\n', CHUNK_SIZE);
        case CHUNK_TRAILER_START:
                if (c == '\r')
                        return chunk_expect(chunks, c, '\r', CHUNK_END_LF);
                chunks->state = CHUNK_TRAILER;
                return chunk_skip(chunks, c, CHUNK_TRAILER_LF);
        case CHUNK_TRAILER:
                return chunk_skip(chunks, c, CHUNK_TRAILER_LF);
        case CHUNK_TRAILER_LF:
                return chunk_expect(chunks, c, '\n', CHUNK_TRAILER_START);
        case CHUNK_END_LF:
                r = chunk_expect(chunks, c, '\n', CHUNK_SIZE);
                chunks->done = r == 0;
                return r;
        case CHUNK_DATA:
                break;
        }
        return -EBADMSG;
}

ssize_t wire_chunks_feed(struct wire_chunks *chunks, const char *bytes, size_t size,
                         const char **ret_data, size_t *ret_size)
{
        size_t used = 0;
        *ret_data = NULL;
        *ret_size = 0;
        while (used < size && !chunks->done) {
                if (chunks->state == CHUNK_DATA) {
                        size_t run = size - used;
                        if (run > chunks->remaining)
                                run = (size_t)chunks->remaining;
                        chunks->remaining -= run;
                        if (chunks->remaining == 0)
                                chunks->state = CHUNK_DATA_CR;
                        *ret_data = bytes + used;
                        *ret_size = run;
                        return (ssize_t)(used + run);
                }
                if (chunk_char(chunks, bytes[used]) < 0)
                        return -EBADMSG;
                used++;
        }
        return (ssize_t)used;
}

/* --- percent-encoding --- */

int wire_percent_decode(char *text, bool plus)
{
        char *out = text;
        for (const char *in = text; *in; in++) {
                if (*in == '%') {
                        int high = str_hex_digit(in[1]);
                        int low = high >= 0 ? str_hex_digit(in[2]) : -1;
                        if (low < 0 || (high == 0 && low == 0))
                                return -EINVAL;
                        *out++ = (char)(high << 4 | low);
                        in += 2;
                } else {
                        *out++ = plus && *in == '+' ? ' ' : *in;
                }
        }
        *out = '\0';
        return 0;
}

void wire_percent_encode(struct buf *out, const char *text, const char *keep)
{
        for (; *text; text++) {
                unsigned char c = (unsigned char)*text;
                bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                             (c >= 'A' && c <= 'Z') || strchr("-._~", c) || strchr(keep, c);
                if (plain)
                        buf_putc(out, (char)c);
                else
                        buf_printf(out, "%%%02X", c);
        }
}

const char *wire_reason(int status)
{
        static const struct {
                int status;
                const char *reason;
        } reasons[] = {
                { 101, "UPGRADED" }, /* docker's own word for it */
                { 200, "OK" },
                { 201, "Created" },
                { 202, "Accepted" },
                { 204, "No Content" },
                { 206, "Partial Content" },
                { 301, "Moved Permanently" },
                { 302, "Found" },
                { 304, "Not Modified" },
                { 307, "Temporary Redirect" },
                { 400, "Bad Request" },
                { 401, "Unauthorized" },
                { 403, "Forbidden" },
                { 404, "Not Found" },
                { 405, "Method Not Allowed" },
                { 406, "Not Acceptable" },
                { 408, "Request Timeout" },
                { 409, "Conflict" },
                { 412, "Precondition Failed" },
                { 413, "Request Entity Too Large" },
                { 416, "Requested Range Not Satisfiable" },
                { 429, "Too Many Requests" },
                { 431, "Request Header Fields Too Large" },
                { 500, "Internal Server Error" },
                { 501, "Not Implemented" },
                { 503, "Service Unavailable" },
                { 507, "Insufficient Storage" },
        };
        for (size_t i = 0; i < ELEMENTS(reasons); i++)
                if (reasons[i].status == status)
                        return reasons[i].reason;
        return "Unknown";
}
