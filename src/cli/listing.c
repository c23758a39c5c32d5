#include "cli/listing.h"

#include <errno.h>
#include <json-c/json_object.h>
#include <json-c/linkhash.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/columns.h"
#include "cli/field.h"
#include "codec/json.h"

#define JSON_ROW "{{json .}}"

DEFINE_CLEANUP(template_cleanup, struct template *, template_destroy)
#define auto_template CLEANUP(template_cleanup) struct template *

/* "\t" and "\n" may be written with a backslash. */
static char *unescape(const char *text)
{
        char *copy = xstrdup(text), *to = copy;
        for (const char *at = text; *at; at++) {
                bool escape = at[0] == '\\' && (at[1] == 't' || at[1] == 'n');
                *to++ = (char)(!escape ? *at : at[1] == 't' ? '\t' : '\n');
                at += escape;
        }
        *to = '\0';
        return copy;
}

static int render_headings(const struct listing *listing, const struct template *template,
                           struct buf *out, struct err *err)
{
        auto_json row = json_object_new_object();
        for (const struct heading *heading = listing->headings; heading->field; heading++)
                row_add(row, heading->field, heading->text);
        int r = template_execute(template, row, listing->method, out, err);
        buf_putc(out, '\n');
        return r;
}

int listing_render(const struct listing *listing, const char *format, const char *table,
                   struct json_object *rows, struct buf *out, struct err *err)
{
        auto_template template = NULL;
        const char *own = format ? str_after(format, "table") : table;
        if (own && format)
                own += strspn(own, " ");
        bool tabular = str_empty(format) || own;
        const char *chosen = !tabular ? format : own && *own ? own : table;
        auto_free char *text = unescape(streq(chosen, "json") ? JSON_ROW : chosen);
        int r = template_parse(text, &template, err);
        if (r < 0)
                return err_wrap(err, "failed to parse template");
        auto_buf lines = { 0 };
        if (tabular)
                r = render_headings(listing, template, &lines, err);
        for (size_t i = 0; r == 0 && i < json_object_array_length(rows); i++) {
                r = template_execute(template, json_object_array_get_idx(rows, i), listing->method,
                                     &lines, err);
                buf_putc(&lines, '\n');
        }
        if (r < 0)
                return err_wrap(err, "failed to execute template");
        if (tabular)
                columns_format(out, buf_text(&lines), COLUMNS_MINIMUM, COLUMNS_PADDING);
        else
                buf_append(out, buf_text(&lines), lines.size);
        return 0;
}

int listing_print(const struct listing *listing, const char *format, const char *table,
                  struct json_object *rows, struct err *err)
{
        auto_buf out = { 0 };
        int r = listing_render(listing, format, table, rows, &out, err);
        if (r == 0)
                fwrite(buf_text(&out), 1, out.size, stdout);
        return r;
}

int listing_check_filter(const char *value, struct err *err)
{
        return strchr(value, '=')
                       ? 0
                       : err_plain(err, EINVAL, "bad format of filter (expected name=value)");
}

int listing_check_format(const char *format, struct err *err)
{
        auto_template template = NULL;
        auto_free char *text = unescape(format ? format : "");
        int r = template_parse(text, &template, err);
        return r < 0 ? err_wrap(err, "template parsing error") : 0;
}

void listing_json(struct json_object *value)
{
        auto_buf out = { 0 };
        field_pretty(&out, value);
        puts(buf_text(&out));
}

int listing_inspect(const char *format, struct json_object *objects, struct err *err)
{
        auto_template template = NULL;
        auto_buf out = { 0 };
        if (str_empty(format)) {
                listing_json(objects);
                return 0;
        }
        auto_free char *text = unescape(streq(format, "json") ? JSON_ROW : format);
        int r = template_parse(text, &template, err);
        for (size_t i = 0; r == 0 && i < json_object_array_length(objects); i++) {
                r = template_execute(template, json_object_array_get_idx(objects, i), NULL, &out,
                                     err);
                if (r == 0)
                        buf_putc(&out, '\n');
        }
        if (r < 0)
                return err_wrap(err, "template parsing error");
        if (out.size == 0)
                buf_putc(&out, '\n');
        fwrite(buf_text(&out), 1, out.size, stdout);
        return 0;
}

void row_add(struct json_object *row, const char *field, const char *text)
{
        json_object_object_add(row, field, json_object_new_string(text ? text : ""));
}

char *text_ellipsis(const char *text, size_t length)
{
        size_t points = 0, kept = 0;
        for (size_t i = 0; text[i]; i++) {
                if (((unsigned char)text[i] & 0xc0) == 0x80)
                        continue;
                if (points == length - 1)
                        kept = i;
                points++;
        }
        if (points <= length)
                return xstrdup(text);
        return xasprintf("%.*s\u2026", (int)kept, text);
}

char *text_short_id(const char *id, bool whole)
{
        if (whole)
                return xstrdup(id);
        const char *hex = str_after(id, "sha256:");
        return xstrndup(hex ? hex : id, 12);
}

static int compare_texts(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

char *text_join_map(struct json_object *map, const char *separator)
{
        auto_strv words = NULL;
        if (json_object_is_type(map, json_type_object)) {
                json_object_object_foreach(map, key, value)
                {
                        const char *text = json_object_get_string(value);
                        strv_push_take(&words, xasprintf("%s=%s", key, text ? text : ""));
                }
        }
        if (words)
                qsort(words, strv_length(words), sizeof(char *), compare_texts);
        return strv_join(words, separator);
}
