#include "image/registry_answers.h"

#include <ctype.h>
#include <strings.h>

#include "base/buf.h"
#include "base/str.h"
#include "codec/json.h"

/* ---- challenges -------------------------------------------------------- */

static bool is_token(char c)
{
        return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static const char *skip(const char *p, const char *set)
{
        return p + strspn(p, set);
}

static const char *take_token(const char *p, char **ret)
{
        const char *end = p;
        while (is_token(*end))
                end++;
        *ret = end > p ? xstrndup(p, (size_t)(end - p)) : NULL;
        return end;
}

/* A quoted string or a token; NULL where it does not end. */
static const char *take_value(const char *p, char **ret)
{
        if (*p != '"') {
                /* Some registries leave URLs unquoted: take all up to a separator. */
                size_t n = strcspn(p, ", \t");
                *ret = xstrndup(p, n);
                return p + n;
        }
        auto_buf value = { 0 };
        for (p++; *p && *p != '"'; p++) {
                if (*p == '\\' && p[1])
                        p++;
                buf_putc(&value, *p);
        }
        if (*p != '"')
                return NULL;
        *ret = buf_take(&value);
        return p + 1;
}

void registry_challenge_finish(struct registry_challenge *challenge)
{
        free(challenge->realm);
        free(challenge->service);
        free(challenge->scope);
        *challenge = (struct registry_challenge){ 0 };
}

static void set_parameter(struct registry_challenge *challenge, const char *name, char *value)
{
        char **slot = strcasecmp(name, "realm") == 0     ? &challenge->realm
                      : strcasecmp(name, "service") == 0 ? &challenge->service
                      : strcasecmp(name, "scope") == 0   ? &challenge->scope
                                                         : NULL;
        if (!slot) {
                free(value);
                return;
        }
        free(*slot);
        *slot = value;
}

/* Parameters of one challenge; stops where the next scheme begins. */
static const char *take_parameters(const char *p, struct registry_challenge *challenge)
{
        for (;;) {
                p = skip(p, ", \t");
                auto_free char *name = NULL;
                const char *after = skip(take_token(p, &name), " \t");
                if (!name || *after != '=')
                        return p;
                char *value = NULL;
                after = take_value(skip(after + 1, " \t"), &value);
                if (!after)
                        return NULL;
                set_parameter(challenge, name, value);
                p = after;
        }
}

int registry_challenge_parse(const char *header, struct registry_challenge *ret)
{
        struct registry_challenge best = { 0 };
        if (strlen(header) > REGISTRY_HEADER_MAX)
                return -EINVAL;
        const char *p = header;
        while (p && *(p = skip(p, ", \t"))) {
                struct registry_challenge challenge = { 0 };
                auto_free char *scheme = NULL;
                p = take_token(p, &scheme);
                if (!scheme)
                        break;
                p = take_parameters(p, &challenge);
                challenge.bearer = strcasecmp(scheme, "Bearer") == 0 && challenge.realm;
                challenge.basic = strcasecmp(scheme, "Basic") == 0;
                if (challenge.bearer || (challenge.basic && !best.bearer)) {
                        registry_challenge_finish(&best);
                        best = challenge;
                } else {
                        registry_challenge_finish(&challenge);
                }
        }
        if (!best.bearer && !best.basic)
                return -EINVAL;
        *ret = best;
        return 0;
}

/* ---- JSON -------------------------------------------------------------- */

struct token_answer {
        char *token, *access_token;
        int64_t expires_in;
};
static const struct json_field token_answer_fields[] = {
        JSON_FIELD(struct token_answer, "token", JSON_STRING, token, 0),
        JSON_FIELD(struct token_answer, "access_token", JSON_STRING, access_token, 0),
        JSON_FIELD(struct token_answer, "expires_in", JSON_INT, expires_in, 0),
};
static const struct json_shape token_answer_shape = JSON_SHAPE("token", struct token_answer,
                                                               token_answer_fields);

/* It becomes a header line. */
bool registry_token_printable(const char *token)
{
        for (; *token; token++)
                if ((unsigned char)*token <= ' ' || (unsigned char)*token >= 127)
                        return false;
        return true;
}

int registry_token_parse(const char *text, size_t size, struct registry_token *ret, struct err *err)
{
        struct token_answer answer = { 0 };
        int r = json_decode_text(&token_answer_shape, text, size, &answer, err);
        if (r < 0)
                return err_wrap(err, "answer of the token server"), r;
        char **token = str_empty(answer.token) ? &answer.access_token : &answer.token;
        if (str_empty(*token) || strlen(*token) > REGISTRY_TOKEN_MAX ||
            !registry_token_printable(*token)) {
                json_free(&token_answer_shape, &answer);
                return err_plain(err, EPROTO, "the token server sent no usable token");
        }
        ret->token = take_ptr(*token);
        ret->expires_in_s = answer.expires_in > REGISTRY_TOKEN_TTL_S ? answer.expires_in
                                                                     : REGISTRY_TOKEN_TTL_S;
        json_free(&token_answer_shape, &answer);
        return 0;
}

struct error_item {
        char *code, *message;
};
static const struct json_field error_item_fields[] = {
        JSON_FIELD(struct error_item, "code", JSON_STRING, code, 0),
        JSON_FIELD(struct error_item, "message", JSON_STRING, message, 0),
};
static const struct json_shape error_item_shape = JSON_SHAPE("error", struct error_item,
                                                             error_item_fields);

struct error_answer {
        struct error_item *errors;
        size_t errors_length;
        char *details, *message; /* of token servers */
};
static const struct json_field error_answer_fields[] = {
        JSON_FIELD_ARRAY(struct error_answer, "errors", errors, errors_length, &error_item_shape,
                         0),
        JSON_FIELD(struct error_answer, "details", JSON_STRING, details, 0),
        JSON_FIELD(struct error_answer, "message", JSON_STRING, message, 0),
};
static const struct json_shape error_answer_shape = JSON_SHAPE("errors", struct error_answer,
                                                               error_answer_fields);

static void printable(char *text)
{
        for (; *text; text++)
                if ((unsigned char)*text < ' ' || *text == 127)
                        *text = ' ';
}

void registry_error_parse(const char *body, size_t size, struct registry_error *ret)
{
        struct error_answer answer = { 0 };
        *ret = (struct registry_error){ 0 };
        if (!body || json_decode_text(&error_answer_shape, body, size, &answer, NULL) < 0)
                return;
        if (answer.errors_length > 0) {
                const struct error_item *item = &answer.errors[0];
                char words[64];
                snprintf(ret->code, sizeof(ret->code), "%s", item->code ? item->code : "");
                snprintf(words, sizeof(words), "%s", ret->code);
                for (char *c = words; *c; c++)
                        *c = *c == '_' ? ' ' : (char)tolower((unsigned char)*c);
                snprintf(ret->text, sizeof(ret->text), "%s%s%s", words,
                         words[0] && item->message ? ": " : "", item->message ? item->message : "");
        } else {
                const char *text = answer.details ? answer.details : answer.message;
                snprintf(ret->text, sizeof(ret->text), "%s", text ? text : "");
        }
        printable(ret->code);
        printable(ret->text);
        json_free(&error_answer_shape, &answer);
}

/* ---- headers and URLs -------------------------------------------------- */

int registry_range_parse(const char *header, uint64_t *ret_bytes)
{
        const char *p = str_after(header, "bytes=");
        p = p ? p : header;
        p = str_after(p, "0-");
        uint64_t last;
        if (!p || str_to_u64(p, &last) < 0 || last == UINT64_MAX)
                return -EINVAL;
        *ret_bytes = last + 1;
        return 0;
}

int registry_url_parse(const char *url, struct registry_url *ret)
{
        const char *host = str_after(url, "https://");
        const char *scheme = host ? "https" : "http";
        if (!host)
                host = str_after(url, "http://");
        if (!host)
                return -EINVAL;
        size_t n = strcspn(host, "/?#");
        for (size_t i = 0; i < n; i++)
                if (!isalnum((unsigned char)host[i]) && !strchr(".-_:[]", host[i]))
                        return -EINVAL;
        if (n == 0 || n > 255)
                return -EINVAL;
        ret->scheme = xstrdup(scheme);
        ret->host = xstrndup(host, n);
        return 0;
}

void registry_url_finish(struct registry_url *url)
{
        free(take_ptr(url->scheme));
        free(take_ptr(url->host));
}

char *registry_query_escape(const char *text)
{
        auto_buf out = { 0 };
        for (; *text; text++) {
                if (isalnum((unsigned char)*text) || strchr("-._~", *text))
                        buf_putc(&out, *text);
                else
                        buf_printf(&out, "%%%02X", (unsigned char)*text);
        }
        return buf_take(&out);
}

char *registry_basic(const char *username, const char *password)
{
        static const char digits[] =
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        auto_free char *plain = xasprintf("%s:%s", username, password);
        auto_buf out = { 0 };
        size_t size = strlen(plain);
        buf_puts(&out, "Basic ");
        for (size_t i = 0; i < size; i += 3) {
                unsigned group = (unsigned)(unsigned char)plain[i] << 16;
                if (i + 1 < size)
                        group |= (unsigned)(unsigned char)plain[i + 1] << 8;
                if (i + 2 < size)
                        group |= (unsigned char)plain[i + 2];
                buf_putc(&out, digits[group >> 18 & 63]);
                buf_putc(&out, digits[group >> 12 & 63]);
                buf_putc(&out, i + 1 < size ? digits[group >> 6 & 63] : '=');
                buf_putc(&out, i + 2 < size ? digits[group & 63] : '=');
        }
        return buf_take(&out);
}
