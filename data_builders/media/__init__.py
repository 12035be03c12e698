"""The room for families mined from pictures, music and subtitles."""
