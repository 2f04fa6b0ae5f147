/* An agent that only writes: it speaks as much of the claude CLI's wire as a service and the
 * Agent SDK need, costs next to nothing itself, and so shows what its readers cost.
 *
 * A message with the words `events N` is answered with N deltas in lines of 300 bytes, any
 * other with one delta, `OK`; one with `wait N` only after N milliseconds. Before its first result
 * it writes a transcript, for which a service looks until it is there. Everything else a real agent
 * does is left out.
 */

#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE 300 /* bytes of an event's line, its newline included */
#define VERSION "2.1.330"

static char session[64] = "00000000-0000-4000-8000-000000000000";
static char buffer[1 << 16];
static size_t filled;
static long results;

static void flush(void)
{
    size_t done = 0;

    while (done < filled) {
        ssize_t count = write(STDOUT_FILENO, buffer + done, filled - done);
        if (count < 0)
            exit(0); /* nobody reads any more */
        done += (size_t)count;
    }
    filled = 0;
}

static void put(const char *data, size_t size)
{
    if (filled + size > sizeof buffer)
        flush();
    memcpy(buffer + filled, data, size);
    filled += size;
}

static void say(const char *format, ...)
{
    char line[4096];
    va_list values;
    int size;

    va_start(values, format);
    size = vsnprintf(line, sizeof line - 1, format, values);
    va_end(values);
    if (size < 0 || (size_t)size >= sizeof line - 1)
        abort();
    line[size++] = '\n';
    put(line, (size_t)size);
}

/* Copies the string behind `"key":` (with or without a space) of a line, or nothing. */
static void field(const char *line, const char *key, char *value, size_t size)
{
    char name[64];
    const char *at;
    size_t length;

    value[0] = 0;
    snprintf(name, sizeof name, "\"%s\":", key);
    at = strstr(line, name);
    if (at == NULL)
        return;
    at += strlen(name);
    at += strspn(at, " ");
    if (*at++ != '"')
        return;
    length = strcspn(at, "\"");
    if (length >= size)
        return;
    memcpy(value, at, length);
    value[length] = 0;
}

static void lifecycle(const char *uuid, const char *state)
{
    if (uuid[0])
        say("{\"type\":\"command_lifecycle\",\"command_uuid\":\"%s\",\"state\":\"%s\","
            "\"session_id\":\"%s\"}", uuid, state, session);
}

static void state(const char *name)
{
    say("{\"type\":\"system\",\"subtype\":\"session_state_changed\",\"state\":\"%s\","
        "\"session_id\":\"%s\"}", name, session);
}

static void delta(const char *text)
{
    say("{\"type\":\"stream_event\",\"event\":{\"type\":\"content_block_delta\",\"index\":0,"
        "\"delta\":{\"type\":\"text_delta\",\"text\":\"%s\"}},\"session_id\":\"%s\","
        "\"parent_tool_use_id\":null,\"uuid\":\"00000000-0000-4000-8000-000000000001\"}",
        text, session);
}

static void deltas(long count)
{
    char text[LINE];
    size_t empty, begin;

    begin = filled;
    delta("");
    empty = filled - begin;
    filled = begin;
    memset(text, 'x', sizeof text);
    text[LINE - empty] = 0;
    while (count-- > 0)
        delta(text);
}

/* Writes a transcript where the CLI has its own: `projects/DIRECTORY/SESSION.jsonl`. */
static void keep_transcript(void)
{
    const char *config = getenv("CLAUDE_CONFIG_DIR");
    char path[4096];
    FILE *file;

    if (config == NULL)
        return;
    snprintf(path, sizeof path, "%s/projects", config);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/projects/-bench", config);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/projects/-bench/%s.jsonl", config, session);
    file = fopen(path, "a");
    if (file == NULL || fputs("{}\n", file) < 0 || fclose(file) != 0)
        exit(1);
}

static void answer(const char *line)
{
    const char *asked = strstr(line, "events "), *waits = strstr(line, "wait ");
    char uuid[64];

    field(line, "uuid", uuid, sizeof uuid);
    if (waits != NULL)
        usleep(1000 * (useconds_t)atol(waits + strlen("wait ")));
    state("running");
    lifecycle(uuid, "queued");
    lifecycle(uuid, "started");
    say("{\"type\":\"stream_event\",\"event\":{\"type\":\"message_start\",\"message\":"
        "{\"id\":\"msg_1\",\"model\":\"haiku\",\"content\":[]}},\"session_id\":\"%s\","
        "\"parent_tool_use_id\":null,\"uuid\":\"00000000-0000-4000-8000-000000000002\"}", session);
    if (asked != NULL)
        deltas(atol(asked + strlen("events ")));
    else
        delta("OK");
    if (results == 0)
        keep_transcript();
    say("{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"%s\","
        "\"session_id\":\"%s\",\"num_turns\":1,\"duration_ms\":0,\"duration_api_ms\":0,"
        "\"total_cost_usd\":0,\"result_index\":%ld,\"user_message_uuids\":[\"%s\"],"
        "\"uuid\":\"00000000-0000-4000-8000-000000000003\",\"usage\":{\"input_tokens\":1,"
        "\"output_tokens\":1},\"modelUsage\":{}}",
        asked != NULL ? "sent" : "OK", session, results++, uuid);
    lifecycle(uuid, "completed");
    state("idle");
}

static void control(const char *line)
{
    char id[64];

    field(line, "request_id", id, sizeof id);
    say("{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\",\"request_id\":\"%s\","
        "\"response\":{\"claude_code_version\":\"" VERSION "\",\"current_permission_mode\":"
        "\"dontAsk\",\"account\":{\"tokenSource\":\"none\",\"apiKeySource\":\"bench\"},"
        "\"commands\":[]}}}", id);
}

int main(int argc, char **argv)
{
    char *line = NULL;
    size_t room = 0;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-v") == 0)
            return puts(VERSION " (Claude Code)") < 0;
        if (strncmp(argv[i], "--session-id=", 13) == 0)
            snprintf(session, sizeof session, "%s", argv[i] + 13);
        if (strncmp(argv[i], "--resume=", 9) == 0)
            snprintf(session, sizeof session, "%s", argv[i] + 9);
    }
    while (getline(&line, &room, stdin) > 0) {
        if (strstr(line, "control_request") != NULL)
            control(line);
        else if (strstr(line, "\"user\"") != NULL)
            answer(line);
        flush();
    }
    free(line);
    return 0;
}
