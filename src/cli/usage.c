#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/terminal.h"

#define NAME_GAP 3

/* Prints `text` from column `column` on, broken at blanks to fit `width`; further
 * lines start at the same column. */
static void print_wrapped(const char *text, size_t column, size_t width)
{
        size_t room = width > column + 20 ? width - column : 20;
        while (*text) {
                size_t length = strlen(text), cut = length;
                if (length > room) {
                        for (cut = room; cut > 0 && text[cut] != ' '; cut--)
                                ;
                        if (cut == 0)
                                cut = strcspn(text, " ");
                }
                printf("%.*s\n", (int)cut, text);
                text += cut;
                text += strspn(text, " ");
                if (*text)
                        printf("%*s", (int)column, "");
        }
}

/* "-v, --volume list" */
static void put_option(struct buf *out, const struct option *option)
{
        const char *word = option_word(option);
        if (option->letter)
                buf_printf(out, "-%c, ", option->letter);
        else
                buf_puts(out, "    ");
        buf_printf(out, "--%s%s%s", option->name, word ? " " : "", word ? word : "");
}

static char *help_text(const struct option *option)
{
        if (!option->initial || streq(option->initial, "false"))
                return xstrdup(option->help);
        bool quoted = option->kind == OPTION_TEXT;
        return xasprintf("%s (default %s%s%s)", option->help, quoted ? "\"" : "", option->initial,
                         quoted ? "\"" : "");
}

static void print_options(const char *title, const struct option *options)
{
        size_t column = 0, width = terminal_width(1);
        for (const struct option *row = options; row->name; row++) {
                auto_buf name = { 0 };
                put_option(&name, row);
                if (!(row->flags & OPTION_HIDDEN) && name.size + 2 + NAME_GAP > column)
                        column = name.size + 2 + NAME_GAP;
        }
        printf("\n%s:\n", title);
        for (const struct option *row = options; row->name; row++) {
                auto_buf name = { 0 };
                auto_free char *help = help_text(row);
                if (row->flags & OPTION_HIDDEN)
                        continue;
                put_option(&name, row);
                printf("  %-*s", (int)(column - 2), buf_text(&name));
                print_wrapped(help, column, width);
        }
}

static void print_commands(const char *title, const char *group, unsigned flags, unsigned wanted)
{
        size_t width = 10, length;
        for (size_t i = 0; i < commands_length; i++)
                if (command_name_in(&commands[i], group, &length) &&
                    (commands[i].flags & flags) == wanted && length > width)
                        width = length;
        printf("\n%s:\n", title);
        for (size_t i = 0; i < commands_length; i++) {
                const char *name = command_name_in(&commands[i], group, &length);
                if (name && (commands[i].flags & flags) == wanted)
                        printf("  %-*.*s  %s\n", (int)width, (int)length, name,
                               commands[i].summary);
        }
}

void usage_program(void)
{
        printf("Usage:  isle [OPTIONS] COMMAND\n\n"
               "Run containers and virtual machines\n");
        print_commands("Common Commands", "", COMMAND_COMMON | COMMAND_HIDDEN, COMMAND_COMMON);
        printf("\nManagement Commands:\n");
        for (size_t i = 0; i < command_groups_length; i++)
                printf("  %-10s  %s\n", command_groups[i].name, command_groups[i].summary);
        print_commands("Commands", "", COMMAND_COMMON | COMMAND_HIDDEN, 0);
        print_options("Global Options", global_options);
        printf("\nRun 'isle COMMAND --help' for more information on a command.\n");
}

void usage_group(const struct command_group *group)
{
        printf("Usage:  isle %s COMMAND\n\n%s\n", group->name, group->summary);
        print_commands("Commands", group->name, COMMAND_HIDDEN, 0);
        printf("\nRun 'isle %s COMMAND --help' for more information on a command.\n", group->name);
}

static void print_usage_lines(const struct command *command, const char *path)
{
        const char *line = command->arguments;
        const char *intro = "Usage: ";
        for (;;) {
                size_t length = strcspn(line, "\n");
                printf("%-7s isle %s%s%.*s\n", intro, path, length ? " " : "", (int)length, line);
                if (!line[length])
                        return;
                line += length + 1;
                intro = "";
        }
}

void usage_command(const struct command *command, const char *path)
{
        const char *cursor = NULL, *alias;
        size_t length;
        print_usage_lines(command, path);
        printf("\n%s\n", command->summary);
        if (command->details) {
                printf("\n");
                print_wrapped(command->details, 0, terminal_width(1));
        }
        if (strchr(command->paths, '|')) {
                printf("\nAliases:\n ");
                for (const char *gap = " "; command_next_path(command, &cursor, &alias, &length);
                     gap = ", ")
                        printf("%sisle %.*s", gap, (int)length, alias);
                printf("\n");
        }
        if (command->options)
                print_options("Options", command->options);
}

/* --- the manual page --- */

/* Text for man(7): backslashes and leading dots are special. */
static void put_roff(const char *text)
{
        for (const char *at = text; *at; at++) {
                if (*at == '\\')
                        fputs("\\e", stdout);
                else if (*at == '-')
                        fputs("\\-", stdout);
                else if ((*at == '.' || *at == '\'') && (at == text || at[-1] == '\n'))
                        printf("\\&%c", *at);
                else
                        putchar(*at);
        }
}

static void put_roff_options(const struct option *options)
{
        for (const struct option *row = options; row && row->name; row++) {
                if (row->flags & OPTION_HIDDEN)
                        continue;
                const char *word = option_word(row);
                auto_free char *help = help_text(row);
                printf(".TP\n");
                if (row->letter)
                        printf("\\fB\\-%c\\fR, ", row->letter);
                printf("\\fB\\-\\-");
                put_roff(row->name);
                printf("\\fR%s%s%s\n", word ? " \\fI" : "", word ? word : "", word ? "\\fR" : "");
                put_roff(help);
                printf("\n");
        }
}

static void put_roff_command(const struct command *command)
{
        const char *cursor = NULL, *path;
        size_t length;
        command_next_path(command, &cursor, &path, &length);
        printf(".SS isle %.*s ", (int)length, path);
        auto_free char *arguments = xstrdup(command->arguments);
        for (char *newline; (newline = strchr(arguments, '\n'));)
                *newline = '|';
        put_roff(arguments);
        printf("\n");
        put_roff(command->summary);
        printf(".\n");
        if (command->details) {
                printf(".PP\n");
                put_roff(command->details);
                printf("\n");
        }
        if (*cursor) {
                printf(".PP\nAlso:");
                for (const char *gap = " "; command_next_path(command, &cursor, &path, &length);
                     gap = ", ")
                        printf("%s\\fBisle %.*s\\fR", gap, (int)length, path);
                printf("\n");
        }
        put_roff_options(command->options);
}

int cmd_generate_man(struct cli *cli, const struct args *args, struct err *err)
{
        (void)cli, (void)args, (void)err;
        printf(".TH ISLE 1 \"\" \"Isle " ISLE_VERSION "\" \"Isle\"\n"
               ".SH NAME\nisle \\- run containers and virtual machines\n"
               ".SH SYNOPSIS\n\\fBisle\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR\n"
               ".SH DESCRIPTION\n"
               "\\fBisle\\fR is the command line of \\fBisled\\fR(8). Its commands, options and "
               "output are docker's where docker has them.\n"
               ".SH OPTIONS\n");
        put_roff_options(global_options);
        printf(".SH COMMANDS\n");
        for (size_t i = 0; i < commands_length; i++)
                if (!(commands[i].flags & COMMAND_HIDDEN))
                        put_roff_command(&commands[i]);
        printf(".SH TEMPLATES\n"
               "\\fB\\-\\-format\\fR takes the part of Go's text/template that it is used with: "
               "fields (\\fB{{.Names}}\\fR), \\fBif\\fR, \\fBelse\\fR, \\fBrange\\fR, "
               "\\fBwith\\fR, variables, pipelines and the functions and, or, not, eq, ne, lt, le, "
               "gt, ge, index, slice, len, print, printf, println, json, join, split, lower, "
               "upper, "
               "title, pad, truncate.\n"
               ".SH EXIT STATUS\n"
               "That of the command for \\fBrun\\fR, \\fBexec\\fR, \\fBattach\\fR and "
               "\\fBstart \\-a\\fR. Otherwise 0 for success, 1 for failure, 125 for an option that "
               "is not known or has a bad value.\n"
               ".SH ENVIRONMENT\n"
               ".TP\n\\fBISLE_HOST\\fR, \\fBDOCKER_HOST\\fR\nWhere the daemon listens.\n"
               ".TP\n\\fBISLE_CONFIG\\fR\nDirectory of config.json.\n"
               ".SH FILES\n"
               ".TP\n\\fI/run/isle/docker.sock\\fR\nWhere the daemon listens by default.\n"
               ".TP\n\\fI~/.isle/config.json\\fR, \\fI~/.docker/config.json\\fR\n"
               "Logins to registries, under \\(lqauths\\(rq. \\fBisle login\\fR writes the first, "
               "both are read.\n"
               ".SH SEE ALSO\n\\fBisled\\fR(8), \\fBisle\\-runtime\\fR(8), "
               "\\fBisle\\-monitor\\fR(8)\n");
        return 0;
}
