#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "codec/json.h"

/* Theory of operation.
 *
 * The shells' scripts are a few lines that call `isle __complete WORD…` with what
 * stands on the line up to the cursor; the answer is one candidate a line,
 * "word<TAB>description", and where files are wanted a last line ":files" or
 * ":directories". Everything is known here: the table of commands, and the names
 * of containers, images and volumes by asking the daemon (silently nothing where
 * it does not answer).
 */

static void offer(const char *prefix, const char *word, size_t length, const char *description)
{
        size_t typed = strlen(prefix);
        if (length < typed || memcmp(word, prefix, typed) != 0)
                return;
        printf("%.*s\t%s\n", (int)length, word, description ? description : "");
}

static void offer_words(const char *prefix, const char *words)
{
        while (words && *words) {
                size_t length = strcspn(words, " ");
                offer(prefix, words, length, NULL);
                words += length;
                words += strspn(words, " ");
        }
}

static void offer_containers(struct cli *cli, const char *prefix, bool all)
{
        auto_buf target = { 0 };
        auto_json list = NULL;
        target_set(&target, "/containers/json");
        target_add_flag(&target, "all", all);
        if (daemon_call(cli, "GET", &target, NULL, &list, NULL) < 0)
                return;
        for (size_t i = 0; i < field_length(list, ""); i++) {
                struct json_object *row = json_object_array_get_idx(list, i);
                struct json_object *names = field_get(row, "Names");
                const char *name = json_object_is_type(names, json_type_array)
                                           ? json_object_get_string(
                                                     json_object_array_get_idx(names, 0))
                                           : NULL;
                if (name)
                        offer(prefix, name + (*name == '/'), strlen(name + (*name == '/')),
                              field_text(row, "Status"));
        }
}

static void offer_images(struct cli *cli, const char *prefix)
{
        auto_buf target = { 0 };
        auto_json list = NULL;
        target_set(&target, "/images/json");
        if (daemon_call(cli, "GET", &target, NULL, &list, NULL) < 0)
                return;
        for (size_t i = 0; i < field_length(list, ""); i++) {
                struct json_object *row = json_object_array_get_idx(list, i);
                struct json_object *tags = field_get(row, "RepoTags");
                for (size_t j = 0; j < field_length(row, "RepoTags"); j++) {
                        const char *tag = json_object_get_string(
                                json_object_array_get_idx(tags, j));
                        offer(prefix, tag, strlen(tag), NULL);
                }
        }
}

static void offer_volumes(struct cli *cli, const char *prefix)
{
        auto_buf target = { 0 };
        auto_json answer = NULL;
        target_set(&target, "/volumes");
        if (daemon_call(cli, "GET", &target, NULL, &answer, NULL) < 0)
                return;
        struct json_object *list = field_get(answer, "Volumes");
        for (size_t i = 0; i < field_length(answer, "Volumes"); i++) {
                const char *name = field_text(json_object_array_get_idx(list, i), "Name");
                offer(prefix, name, strlen(name), NULL);
        }
}

static void offer_kind(struct cli *cli, enum completion kind, const char *words, const char *prefix)
{
        switch (kind) {
        case COMPLETE_NOTHING:
                break;
        case COMPLETE_FILE:
                puts(":files");
                break;
        case COMPLETE_DIRECTORY:
                puts(":directories");
                break;
        case COMPLETE_CONTAINER:
        case COMPLETE_RUNNING:
                offer_containers(cli, prefix, kind == COMPLETE_CONTAINER);
                break;
        case COMPLETE_IMAGE:
                offer_images(cli, prefix);
                break;
        case COMPLETE_VOLUME:
                offer_volumes(cli, prefix);
                break;
        case COMPLETE_WORDS:
                offer_words(prefix, words);
                break;
        }
}

static void offer_options(const struct option *options, const char *prefix)
{
        for (const struct option *row = options; row && row->name; row++) {
                if (row->flags & OPTION_HIDDEN)
                        continue;
                auto_free char *word = xasprintf("--%s", row->name);
                offer(prefix, word, strlen(word), row->help);
        }
        offer(prefix, "--help", 6, "Print usage");
}

static void offer_commands(const char *group, const char *prefix)
{
        size_t length;
        for (size_t i = 0; i < commands_length; i++) {
                const char *name = command_name_in(&commands[i], group, &length);
                if (name && !(commands[i].flags & COMMAND_HIDDEN))
                        offer(prefix, name, length, commands[i].summary);
        }
        for (size_t i = 0; !*group && i < command_groups_length; i++)
                offer(prefix, command_groups[i].name, strlen(command_groups[i].name),
                      command_groups[i].summary);
}

/* The option whose value the next word would be; NULL where it is none. */
static const struct option *awaits_value(const struct option *options, const char *word)
{
        const struct option *option = NULL;
        if (word[0] != '-' || !word[1] || strchr(word, '='))
                return NULL;
        if (word[1] == '-')
                option = option_find(options, word + 2, strlen(word + 2));
        else
                option = option_find_letter(options, word[strlen(word) - 1]);
        return option && option->kind != OPTION_BOOL ? option : NULL;
}

/* Words behind the command's name; the last is being typed. */
static void complete_command(struct cli *cli, const struct command *command, char **words,
                             size_t length)
{
        const char *typed = words[length - 1];
        const struct option *pending = NULL;
        size_t arguments = 0;
        for (size_t i = 0; i + 1 < length; i++) {
                if (pending)
                        pending = NULL;
                else if (words[i][0] == '-' && words[i][1] &&
                         !(arguments && command->flags & COMMAND_STOP_EARLY))
                        pending = awaits_value(command->options, words[i]);
                else
                        arguments++;
        }
        const char *equals = strchr(typed, '=');
        if (!pending && typed[0] == '-' && equals) {
                auto_free char *name = xstrndup(typed, (size_t)(equals - typed));
                pending = awaits_value(command->options, name);
                typed = equals + 1;
        }
        if (pending)
                offer_kind(cli, pending->completion, pending->words, typed);
        else if (typed[0] == '-' && !(arguments && command->flags & COMMAND_STOP_EARLY))
                offer_options(command->options, typed);
        else if (arguments < command->most && !(arguments && command->flags & COMMAND_STOP_EARLY))
                offer_kind(cli, command->completion,
                           command->options ? command->options->words : NULL, typed);
}

int cmd_complete(struct cli *cli, const struct args *args, struct err *err)
{
        (void)err;
        char **words = args->rest;
        size_t length = args->length;
        char *empty[] = { "", NULL };
        if (length == 0) {
                words = empty;
                length = 1;
        }
        /* Global options stand before the command. */
        while (length > 1 && words[0][0] == '-') {
                size_t used = awaits_value(global_options, words[0]) ? 2 : 1;
                if (used >= length)
                        return 0;
                words += used;
                length -= used;
        }
        int taken;
        const char *path;
        size_t path_length;
        const struct command *command = command_find((int)length - 1, words, &taken, &path,
                                                     &path_length);
        if (command)
                complete_command(cli, command, words + taken, length - (size_t)taken);
        else if (length == 1 && words[0][0] == '-')
                offer_options(global_options, words[0]);
        else if (length == 1)
                offer_commands("", words[0]);
        else if (length == 2 && command_group_find(words[0]))
                offer_commands(words[0], words[1]);
        return 0;
}

/* --- scripts --- */

static const char bash_script[] = "# bash completion for isle\n"
                                  "_isle() {\n"
                                  "    local cur words=() line kind=''\n"
                                  "    if declare -F _get_comp_words_by_ref >/dev/null; then\n"
                                  "        local cword\n"
                                  "        _get_comp_words_by_ref -n =: cur words cword\n"
                                  "        words=(\"${words[@]:1:cword}\")\n"
                                  "    else\n"
                                  "        cur=${COMP_WORDS[COMP_CWORD]}\n"
                                  "        words=(\"${COMP_WORDS[@]:1:COMP_CWORD}\")\n"
                                  "    fi\n"
                                  "    COMPREPLY=()\n"
                                  "    while IFS= read -r line; do\n"
                                  "        case $line in\n"
                                  "        :files) kind=-f ;;\n"
                                  "        :directories) kind=-d ;;\n"
                                  "        *) COMPREPLY+=(\"${line%%$'\\t'*}\") ;;\n"
                                  "        esac\n"
                                  "    done < <(isle __complete \"${words[@]}\" 2>/dev/null)\n"
                                  "    if [[ $kind ]]; then\n"
                                  "        compopt -o filenames 2>/dev/null\n"
                                  "        local part=$cur\n"
                                  "        [[ $cur == -*=* ]] && part=${cur#*=}\n"
                                  "        mapfile -t COMPREPLY < <(compgen $kind -- \"$part\")\n"
                                  "    fi\n"
                                  "    declare -F __ltrim_colon_completions >/dev/null && "
                                  "__ltrim_colon_completions \"$cur\"\n"
                                  "}\n"
                                  "complete -F _isle isle\n";

static const char zsh_script[] =
        "#compdef isle\n"
        "_isle() {\n"
        "    local line word description kind='' candidates=()\n"
        "    while IFS= read -r line; do\n"
        "        case $line in\n"
        "        :files) kind=files ;;\n"
        "        :directories) kind=directories ;;\n"
        "        *)\n"
        "            word=${line%%$'\\t'*} description=${line#*$'\\t'}\n"
        "            candidates+=(\"${word//:/\\\\:}:$description\") ;;\n"
        "        esac\n"
        "    done < <(isle __complete \"${(@)words[2,CURRENT]}\" 2>/dev/null)\n"
        "    if [[ $kind == files ]]; then\n"
        "        _files\n"
        "    elif [[ $kind == directories ]]; then\n"
        "        _files -/\n"
        "    else\n"
        "        _describe isle candidates\n"
        "    fi\n"
        "}\n"
        "if [[ $funcstack[1] == _isle ]]; then _isle; else compdef _isle isle; fi\n";

static const char fish_script[] = "# fish completion for isle\n"
                                  "function __isle_complete\n"
                                  "    set -l words (commandline -opc) (commandline -ct)\n"
                                  "    for line in (isle __complete $words[2..-1] 2>/dev/null)\n"
                                  "        switch $line\n"
                                  "            case ':files'\n"
                                  "                __fish_complete_path (commandline -ct)\n"
                                  "            case ':directories'\n"
                                  "                __fish_complete_directories (commandline -ct)\n"
                                  "            case '*'\n"
                                  "                echo $line\n"
                                  "        end\n"
                                  "    end\n"
                                  "end\n"
                                  "complete -c isle -f -a '(__isle_complete)'\n";

const struct option completion_options[] = {
        /* Hidden: only its words matter, they complete the argument. */
        { .name = "shell", .kind = OPTION_TEXT, .words = "bash zsh fish", .flags = OPTION_HIDDEN },
        { 0 },
};

int cmd_completion(struct cli *cli, const struct args *args, struct err *err)
{
        static const struct {
                const char *shell, *script;
        } scripts[] = { { "bash", bash_script }, { "zsh", zsh_script }, { "fish", fish_script } };
        (void)cli;
        for (size_t i = 0; i < ELEMENTS(scripts); i++) {
                if (streq(args->rest[0], scripts[i].shell)) {
                        fputs(scripts[i].script, stdout);
                        return 0;
                }
        }
        return err_plain(err, EINVAL, "unknown shell '%s': must be bash, zsh or fish",
                         args->rest[0]);
}
